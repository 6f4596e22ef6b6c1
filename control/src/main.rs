//! The command line `phoenix`: see `phoenix_control::run`.

fn main() -> std::process::ExitCode {
    phoenix_control::run()
}

/// `phoenix control` reads reports on many threads and holds them for long. The system's allocator, with an arena for each few threads, then keeps three times what is held:
/// 1,041 MB for a thousand embedders (`cargo xtask bench control`).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
