//! svm
