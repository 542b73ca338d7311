//! What `--help` tells.

use expect_test::{Expect, expect};

use crate::node::{program, said};

#[test]
fn help_tells_every_flag() {
    let check =
        |arguments: &[&str], expected: Expect| expected.assert_eq(&said(program(arguments)));
    check(
        &["job", "--help"],
        expect![[r#"
        Submits jobs to a cluster, and tells what becomes of them

        Usage: mvm-ci job [OPTIONS] <COMMAND>

        Commands:
          submit  Submits a job, and prints its id
          list    Lists jobs, the newest first
          show    Shows a job and what was tried
          logs    Writes a job's output: what it wrote to standard output there, and to standard error there
          cancel  Cancels a job; one that runs is stopped by its worker
          retry   Tries a failed or dead job again
          wait    Waits until jobs have ended
          help    Print this message or the help of the given subcommand(s)

        Options:
          -h, --help  Print help

        Nodes:
              --server <URL>        A node to ask; with several, the next one if one is down [env:
                                    MVM_CI_SERVER] [default: http://127.0.0.1:3020]
              --token-file <FILE>   A file with the token that proves who you are [default: the variable
                                    MVM_CI_TOKEN, if set]
              --ca <FILE>           Certificates (PEM) of an authority to trust besides the system's, for
                                    https
              --timeout <DURATION>  How long to look for a node that serves a request [default: 30s]
              --json                Writes JSON to standard output

        Exit codes:
            0  done; the jobs that were waited for completed; the cluster is healthy
            1  a job that was waited for failed, was cancelled or is dead; the cluster is degraded
            2  usage: the command line, a file it names or the environment is wrong
            3  unknown: a change was sent and nobody told what became of it, or what answered is no node
            4  unreachable: no node took the request in time; nothing was changed
            5  refused: a node understood and said no
          130  interrupted: nobody waits any more, and the job goes on
        exit 0
    "#]],
    );
    check(
        &["job", "submit", "--help"],
        expect![[r#"
            Submits a job, and prints its id

            Usage: mvm-ci job submit [OPTIONS] -- COMMAND [ARGUMENT]...
                   mvm-ci job submit [OPTIONS] --script TEXT
                   mvm-ci job submit [OPTIONS] --kind KIND [--payload JSON]

            Arguments:
              [COMMAND]...  A command, run by a node

            Options:
                  --kind <KIND>              A job for workers of this kind
                  --payload <JSON|@FILE|->   What that worker is told [default: null]
                  --script <TEXT|@FILE|->    A script for /bin/sh, run by a node
                  --env <NAME=VALUE>         A variable of the command or script
                  --memory-limit <BYTES>     Memory that the command or script may use: 512M, 2G
                  --label <LABEL>            A label that the worker must offer
                  --priority <PRIORITY>      Higher goes first [default: 0]
                  --attempts <NUMBER>        How often it may fail or time out [default: 1]
                  --time-limit <DURATION>    How long one attempt may take: 90s, 10m, 1h 30m
                  --concurrency <KEY=LIMIT>  At most so many jobs of this key at once
                  --run-after <WHEN>         Not before: 10m from now, or 2027-01-31T08:00:00Z
                  --after <ID>...            Jobs that must complete first
                  --idempotency-key <KEY>    The same key is the same job: submitting it again changes nothing
                  --wait                     Waits until the job has ended; the exit code tells how
                  --follow                   Writes the job's output as it comes, until it has ended; the exit
                                             code tells how
              -h, --help                     Print help

            Nodes:
                  --server <URL>        A node to ask; with several, the next one if one is down [env:
                                        MVM_CI_SERVER] [default: http://127.0.0.1:3020]
                  --token-file <FILE>   A file with the token that proves who you are [default: the variable
                                        MVM_CI_TOKEN, if set]
                  --ca <FILE>           Certificates (PEM) of an authority to trust besides the system's, for
                                        https
                  --timeout <DURATION>  How long to look for a node that serves a request [default: 30s]
                  --json                Writes JSON to standard output

            Values written @FILE are read from that file, - from standard input.
            exit 0
        "#]],
    );
    check(
        &["job", "list", "-h"],
        expect![[r#"
        Lists jobs, the newest first

        Usage: mvm-ci job list [OPTIONS]

        Options:
              --state <STATE>        Only those in this state
              --label <LABEL>        Only those that need this label
              --submitted-on <NODE>  Only those that this node took
              --claimed-on <NODE>    Only those that a worker of this node claimed last
              --since <WHEN>         Only those submitted since: 10m ago, or 2027-01-31T08:00:00Z
              --oldest-first         Lists the oldest first
              --limit <JOBS>         At most so many [default: 50]
              --all                  All of them
          -h, --help                 Print help

        Nodes:
              --server <URL>        A node to ask; with several, the next one if one is down [env:
                                    MVM_CI_SERVER] [default: http://127.0.0.1:3020]
              --token-file <FILE>   A file with the token that proves who you are [default: the variable
                                    MVM_CI_TOKEN, if set]
              --ca <FILE>           Certificates (PEM) of an authority to trust besides the system's, for
                                    https
              --timeout <DURATION>  How long to look for a node that serves a request [default: 30s]
              --json                Writes JSON to standard output
        exit 0
    "#]],
    );
    check(
        &["cluster", "-h"],
        expect![[r#"
            Tells how a cluster is, empties nodes of jobs, and backs up the queue

            Usage: mvm-ci cluster [OPTIONS] <COMMAND>

            Commands:
              status  Tells of every node whether it is ready, who leads, and how far it is behind
              drain   Has a node take no more jobs; those that it runs go on to their end
              resume  Has a node take jobs again
              backup  Backs up the queue
              help    Print this message or the help of the given subcommand(s)

            Options:
              -h, --help  Print help

            Nodes:
                  --server <URL>        A node to ask; with several, the next one if one is down [env:
                                        MVM_CI_SERVER] [default: http://127.0.0.1:3020]
                  --token-file <FILE>   A file with the token that proves who you are [default: the variable
                                        MVM_CI_TOKEN, if set]
                  --ca <FILE>           Certificates (PEM) of an authority to trust besides the system's, for
                                        https
                  --timeout <DURATION>  How long to look for a node that serves a request [default: 30s]
                  --json                Writes JSON to standard output

            Exit codes:
                0  done; the jobs that were waited for completed; the cluster is healthy
                1  a job that was waited for failed, was cancelled or is dead; the cluster is degraded
                2  usage: the command line, a file it names or the environment is wrong
                3  unknown: a change was sent and nobody told what became of it, or what answered is no node
                4  unreachable: no node took the request in time; nothing was changed
                5  refused: a node understood and said no
              130  interrupted: nobody waits any more, and the job goes on
            exit 0
        "#]],
    );
    check(
        &["schedule", "add", "-h"],
        expect![[r#"
        Adds a schedule, or replaces the one of that name, and prints its next time

        Usage: mvm-ci schedule add [OPTIONS] NAME --cron LINE -- COMMAND [ARGUMENT]...
               mvm-ci schedule add [OPTIONS] NAME --cron LINE --script TEXT
               mvm-ci schedule add [OPTIONS] NAME --cron LINE --kind KIND [--payload JSON]

        Arguments:
          <NAME>        The schedule's name
          [COMMAND]...  A command, run by a node

        Options:
              --cron <LINE>              When, in UTC: minute, hour, day of the month, month, day of the
                                         week; seconds may come first
              --missed <HOW>             What becomes of times at which no node could submit: once (the last
                                         of them), all (a hundred at most) or skip [default: once]
              --kind <KIND>              A job for workers of this kind
              --payload <JSON|@FILE|->   What that worker is told [default: null]
              --script <TEXT|@FILE|->    A script for /bin/sh, run by a node
              --env <NAME=VALUE>         A variable of the command or script
              --memory-limit <BYTES>     Memory that the command or script may use: 512M, 2G
              --label <LABEL>            A label that the worker must offer
              --priority <PRIORITY>      Higher goes first [default: 0]
              --attempts <NUMBER>        How often it may fail or time out [default: 1]
              --time-limit <DURATION>    How long one attempt may take: 90s, 10m, 1h 30m
              --concurrency <KEY=LIMIT>  At most so many jobs of this key at once
          -h, --help                     Print help

        Nodes:
              --server <URL>        A node to ask; with several, the next one if one is down [env:
                                    MVM_CI_SERVER] [default: http://127.0.0.1:3020]
              --token-file <FILE>   A file with the token that proves who you are [default: the variable
                                    MVM_CI_TOKEN, if set]
              --ca <FILE>           Certificates (PEM) of an authority to trust besides the system's, for
                                    https
              --timeout <DURATION>  How long to look for a node that serves a request [default: 30s]
              --json                Writes JSON to standard output

        Values written @FILE are read from that file, - from standard input.
        exit 0
    "#]],
    );
    check(
        &["cluster", "backup", "-h"],
        expect![[r#"
        Backs up the queue

        Usage: mvm-ci cluster backup [OPTIONS] <COMMAND>

        Commands:
          list   Lists the backups of the node that answers, the newest first
          now    Makes a backup on every node, and prints its name; within a minute there is only one
          fetch  Fetches a backup from the node that answers, and prints the file's name
          help   Print this message or the help of the given subcommand(s)

        Options:
          -h, --help  Print help

        Nodes:
              --server <URL>        A node to ask; with several, the next one if one is down [env:
                                    MVM_CI_SERVER] [default: http://127.0.0.1:3020]
              --token-file <FILE>   A file with the token that proves who you are [default: the variable
                                    MVM_CI_TOKEN, if set]
              --ca <FILE>           Certificates (PEM) of an authority to trust besides the system's, for
                                    https
              --timeout <DURATION>  How long to look for a node that serves a request [default: 30s]
              --json                Writes JSON to standard output
        exit 0
    "#]],
    );
}
