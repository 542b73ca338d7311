//! `mvm-ci token`: makes tokens for clients of a node.

use std::process::ExitCode;

use anyhow::Context as _;
use jiff::Timestamp;
use mvm_node::auth::{NewGrant, Token, append};

use crate::cli::{NewTokenArgs, TokenCommand};

pub(super) fn token(command: TokenCommand) -> anyhow::Result<ExitCode> {
    match command {
        TokenCommand::New(arguments) => new(arguments),
    }
}

fn new(arguments: NewTokenArgs) -> anyhow::Result<ExitCode> {
    let token = Token::generate().context("could not make a token")?;
    let created_at = Timestamp::from_second(Timestamp::now().as_second())?;
    let expires_at = match arguments.expires {
        Some(lifetime) => Some(
            created_at
                .checked_add(lifetime)
                .context("could not make a token that lasts so long")?,
        ),
        None => None,
    };
    let grant = NewGrant {
        name: arguments.name,
        scopes: arguments.scope,
        hash: token.hash(),
        created_at,
        expires_at,
    };
    if let Some(file) = &arguments.file {
        append(file, &grant)?;
    }
    #[expect(
        clippy::print_stdout,
        reason = "this is the command's output, told this once"
    )]
    {
        println!("{}", token.expose());
        if arguments.file.is_none() {
            println!("\n{}", grant.entry());
        }
    }
    Ok(ExitCode::SUCCESS)
}
