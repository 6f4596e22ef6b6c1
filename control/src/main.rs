//! The command line `phoenix`: see `phoenix_control::run`.

fn main() -> std::process::ExitCode {
    take_one_arena();
    phoenix_control::run()
}

/// `phoenix control` reads reports and decides on whichever thread is free. glibc gives each few threads an arena of their own, and each keeps what the largest turn there
/// took: of a thousand embedders 1,041 MB were resident, and with one arena 391 (`cargo xtask bench control --part served`).
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn take_one_arena() {
    // SAFETY: it takes two numbers and no pointer, and no other thread runs yet. Where it fails there are as many arenas as before.
    let _ = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn take_one_arena() {}
