//! The stages of the control host, one after the other: policy, collect, estimate, decide.

mod stages {
    pub mod tools;

    mod collect;
    mod decide;
    mod estimate;
    mod policy;
}
