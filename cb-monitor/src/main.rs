//! `cbctl`; see the library's `cli`.

fn main() -> std::process::ExitCode {
    cb_monitor::cli::main()
}
