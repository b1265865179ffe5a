/// Of all that is allocated, librdkafka's buffers included: glibc's gives pages back that are asked for again at once.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    projector::cli::main()
}
