//! The command line `phoenix`: see `phoenix_control::run`.

fn main() -> std::process::ExitCode {
    phoenix_control::run()
}
