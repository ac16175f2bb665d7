//! The program `host`: HERALD's engine from a terminal.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
