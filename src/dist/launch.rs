//! What a launcher tells a process through its environment: which rank it is, of how many.

use std::env;

/// The family of launchers that started this process, which says where to look for an MPI library first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Open MPI's mpirun.
    OpenMpi,
    /// mpiexec of MPICH, Intel MPI and others with Hydra; srun with `--mpi=pmi2`.
    Pmi,
    /// srun with `--mpi=pmix`, and other launchers with PMIx.
    Pmix,
    /// srun without an MPI plugin.
    Slurm,
}

/// How a process was launched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Launch {
    /// Who launched it.
    pub family: Family,
    /// Its rank, if that is known before MPI has started.
    pub rank: Option<usize>,
    /// The number of ranks, if that is known before MPI has started.
    pub size: Option<usize>,
}

impl Launch {
    /// How this process was launched; `None` if by nobody.
    pub fn find() -> Option<Self> {
        Self::of(&|name| env::var(name).ok())
    }

    /// The same of any environment.
    pub(crate) fn of(variable: &dyn Fn(&str) -> Option<String>) -> Option<Self> {
        let number = |name| variable(name)?.trim().parse::<usize>().ok();
        // srun's own count: in the script of a job SLURM_NTASKS is set as well, though nobody has launched that with srun.
        let step = number("SLURM_STEP_NUM_TASKS").filter(|_| variable("SLURM_STEP_ID").is_some());
        let in_step = || step.and_then(|_| number("SLURM_PROCID"));
        let launch = |family, rank: Option<usize>, size: Option<usize>| Some(Self { family, rank, size });
        if let Some(size) = number("OMPI_COMM_WORLD_SIZE") {
            return launch(Family::OpenMpi, number("OMPI_COMM_WORLD_RANK"), Some(size));
        }
        if let Some(rank) = number("PMIX_RANK") {
            return launch(Family::Pmix, Some(rank), step);
        }
        if let Some(size) = number("PMI_SIZE") {
            return launch(Family::Pmi, number("PMI_RANK"), Some(size));
        }
        launch(Family::Slurm, Some(in_step()?), step)
    }

    /// The launcher in words.
    pub fn name(&self) -> &'static str {
        match self.family {
            Family::OpenMpi => "Open MPI's mpirun",
            Family::Pmi => "a launcher that speaks PMI (MPICH's mpiexec, srun --mpi=pmi2)",
            Family::Pmix => "a launcher that speaks PMIx (srun --mpi=pmix)",
            Family::Slurm => "srun without an MPI plugin",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Option<(Family, Option<usize>, Option<usize>)> {
        let find = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_string());
        Launch::of(&find).map(|launch| (launch.family, launch.rank, launch.size))
    }

    #[test]
    fn each_launcher_is_known_by_its_variables() {
        assert_eq!(of(&[]), None);
        let mpirun = [("OMPI_COMM_WORLD_SIZE", "4"), ("OMPI_COMM_WORLD_RANK", "3"), ("PMIX_RANK", "3")];
        assert_eq!(of(&mpirun), Some((Family::OpenMpi, Some(3), Some(4))));
        assert_eq!(of(&[("PMI_RANK", "1"), ("PMI_SIZE", "2")]), Some((Family::Pmi, Some(1), Some(2))));
        let step = [("SLURM_STEP_ID", "0"), ("SLURM_STEP_NUM_TASKS", "8"), ("SLURM_PROCID", "5")];
        assert_eq!(of(&step), Some((Family::Slurm, Some(5), Some(8))));
        assert_eq!(of(&[&step[..], &[("PMIX_RANK", "5")]].concat()), Some((Family::Pmix, Some(5), Some(8))));
    }

    #[test]
    fn the_script_of_a_slurm_job_is_no_rank() {
        assert_eq!(of(&[("SLURM_NTASKS", "4"), ("SLURM_PROCID", "0"), ("SLURM_JOB_ID", "17")]), None);
    }
}
