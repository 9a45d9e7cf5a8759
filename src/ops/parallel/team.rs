//! Threads that stay awake during a pass.
//!
//! Handing work to a sleeping thread costs 10 to 50 microseconds, and a call into rayon's pool from outside hands it over three
//! times. A pass of ANet over one patch takes a millisecond and hands over work ten times. Inside [`awake`], the pool's other
//! threads wait for tasks in a loop instead: handing over costs less than a microsecond. They are jobs of the pool like any other:
//! if all of its threads are busy, for example with passes of their own, this thread does the tasks alone.

use super::threads;
use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

/// What a worker does for a set of tasks; the argument is its number.
type Job<'a> = &'a (dyn Fn(usize) + Sync);

thread_local! {
    /// The team that this thread leads.
    static LED: Cell<*const Team> = const { Cell::new(ptr::null()) };
}

#[derive(Default)]
struct Team {
    /// The current job, on the leader's stack; null between jobs.
    job: AtomicPtr<Job<'static>>,
    /// Number of jobs so far: a member does each once.
    jobs: AtomicUsize,
    /// Members that may be using the job.
    active: AtomicUsize,
    closed: AtomicBool,
}

/// Rounds in which a waiting member only looks; then it offers its processor to other threads each time.
const SPIN: usize = 4000;

impl Team {
    /// A member's life.
    fn join(&self, number: usize) {
        let mut done = 0;
        let mut rounds = 0;
        while !self.closed.load(Ordering::Acquire) {
            let jobs = self.jobs.load(Ordering::Acquire);
            if jobs == done {
                rounds += 1;
                if rounds < SPIN {
                    std::hint::spin_loop()
                } else {
                    std::thread::yield_now()
                }
                continue;
            }
            (done, rounds) = (jobs, 0);
            let _active = Active::new(&self.active);
            let job = self.job.load(Ordering::SeqCst);
            if !job.is_null() {
                // SAFETY: the leader waits until no member is active before the job ends. Either it sees this member, or this
                // member sees that there is no job: both are announced before they look, in one order of all.
                unsafe { (*job)(number) };
            }
        }
    }
}

/// Counts a member as active while it lives.
struct Active<'a>(&'a AtomicUsize);

impl<'a> Active<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Ends a job when dropped, by a panic too: no member uses it any more.
struct Running<'a> {
    team: &'a Team,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.team.job.store(ptr::null_mut(), Ordering::SeqCst);
        while self.team.active.load(Ordering::SeqCst) > 0 {
            std::hint::spin_loop();
        }
        LED.set(self.team);
    }
}

/// Runs `job` on the team that this thread leads: on this thread as worker 0, and on the others as far as they have come. False,
/// and nothing has run, if it leads none.
pub(super) fn run(job: Job<'_>) -> bool {
    let team = LED.get();
    if team.is_null() {
        return false;
    }
    // SAFETY: `awake` resets the pointer before the team ends.
    let team = unsafe { &*team };
    // A job that has tasks of its own finds no team.
    LED.set(ptr::null());
    let running = Running { team };
    let place = ptr::from_ref(&job).cast_mut().cast::<Job<'static>>();
    team.job.store(place, Ordering::SeqCst);
    team.jobs.fetch_add(1, Ordering::Release);
    job(0);
    drop(running);
    true
}

/// Dismisses a team when dropped.
struct Led<'a>(&'a Team);

impl Drop for Led<'_> {
    fn drop(&mut self) {
        LED.set(ptr::null());
        self.0.closed.store(true, Ordering::Release);
    }
}

/// Runs `f`, during which other threads of the pool wait for the tasks that `f` hands out on this thread.
pub fn awake<R>(f: impl FnOnce() -> R) -> R {
    if threads() == 1 || !LED.get().is_null() {
        return f();
    }
    let team = Team::default();
    let members = &team;
    rayon::in_place_scope(|scope| {
        for number in 1..threads() {
            scope.spawn(move |_| members.join(number));
        }
        let _led = Led(members);
        LED.set(members);
        f()
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Disjoint, tasks};
    use super::*;

    #[test]
    fn a_team_runs_every_task_of_every_job_once() {
        let mut seen = vec![0.0; 300];
        awake(|| {
            for round in 0..300 {
                let marks = Disjoint::new(&mut seen);
                tasks(round, &mut vec![0.0; 2 * threads()], |task, scratch| {
                    assert_eq!(scratch.len(), 2);
                    // SAFETY: each task owns its own index.
                    let mark = unsafe { marks.slice(task..task + 1) };
                    mark[0] += 1.0;
                });
            }
        });
        for (task, count) in seen.iter().enumerate() {
            assert_eq!(*count, (299 - task) as f32, "task {task}");
        }
        assert!(LED.get().is_null());
    }

    #[test]
    fn tasks_within_tasks_and_teams_on_busy_threads_end() {
        let total = AtomicUsize::new(0);
        rayon::scope(|scope| {
            for _ in 0..4 * threads() {
                scope.spawn(|_| {
                    awake(|| {
                        tasks(3, &mut [], |_, _| {
                            tasks(5, &mut [], |_, _| {
                                total.fetch_add(1, Ordering::Relaxed);
                            });
                        });
                    });
                });
            }
        });
        assert_eq!(total.load(Ordering::Relaxed), 4 * threads() * 15);
    }

    #[test]
    fn a_panic_dismisses_the_team() {
        let panicked = std::panic::catch_unwind(|| awake(|| tasks(8, &mut [], |task, _| assert_ne!(task, 5))));
        assert!(panicked.is_err() && LED.get().is_null());
    }
}
