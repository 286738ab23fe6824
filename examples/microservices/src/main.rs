//! One executable with four roles: the three services, and the demo that starts them.

use std::process::ExitCode;

use microservices::{auth, demo, gateway, profile};

const USAGE: &str = "\
usage: microservices                       all services, a steady load, a script of faults, a live view
       microservices --once                the script once, unattended; exit code 0 if every promise held
       microservices --once --record FILE  as --once, and writes the live view as an SVG
       microservices gateway | profile-service | auth-service
                                           one service, configured by the environment: see .env.template";

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let held = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["gateway"] => gateway::run().await.map(|()| true),
        ["profile-service"] => profile::run().await.map(|()| true),
        ["auth-service"] => auth::run().await.map(|()| true),
        [] => demo::run(demo::Mode::Interactive).await,
        ["--once"] => demo::run(demo::Mode::Once { record: None }).await,
        ["--once", "--record", file] => demo::run(demo::Mode::Once { record: Some(file.into()) }).await,
        _ => Err(anyhow::anyhow!(USAGE)),
    };
    match held {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
