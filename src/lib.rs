pub mod event;
pub mod json_paths;
pub mod patch;
pub mod plan;
pub mod spec;
pub mod value;
