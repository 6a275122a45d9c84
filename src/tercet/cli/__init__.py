"""The command line: `tercet COMMAND ...`. One command, one file; this one finds it and gives exit codes.

Nothing heavy is imported for `--help`: the table below holds what that page says, and a command's module comes with
its command.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tercet.errors import InvalidRequest, MissingBranch, MissingGrant, MissingMemory, Refused, TercetError

if TYPE_CHECKING:
    from tercet.cli.options import Command

COMMANDS: Mapping[str, tuple[str, str]] = {
    "remember": ("tercet.cli.remember", "Keep a text, what somebody said, or a file."),
    "recall": ("tercet.cli.recall", "Find the memories that answer a question."),
    "context": ("tercet.cli.context", "Render the best memories as a passage for a prompt."),
    "list": ("tercet.cli.list_", "List memories, oldest first, a page at a time."),
    "show": ("tercet.cli.show", "Show all that is known of one memory."),
    "revise": ("tercet.cli.revise", "Write the next version of a memory."),
    "history": ("tercet.cli.history", "Show every version of a memory."),
    "rollback": ("tercet.cli.rollback", "Make an earlier version the newest again."),
    "snapshot": ("tercet.cli.snapshot", "Name what there is now, to come back to or to compare with."),
    "branch": ("tercet.cli.branch", "Begin a branch, on which to write without touching the main line."),
    "diff": ("tercet.cli.diff", "Show what differs between two snapshots or branches."),
    "restore": ("tercet.cli.restore", "Go back to a snapshot; this can be undone."),
    "quarantine": ("tercet.cli.quarantine", "List, release or forget what reads like an instruction to a model."),
    "trace": ("tercet.cli.trace", "Show which answers a memory went into, or which memories an answer had."),
    "forget": ("tercet.cli.forget", "Erase memories, with everything made from them."),
    "freeze": ("tercet.cli.freeze", "Let nothing change memories until they are unfrozen."),
    "hold": ("tercet.cli.hold", "Let nothing erase memories until the hold is released."),
    "archive": ("tercet.cli.archive", "Take memories out of what recall looks at, or bring them back."),
    "verify": ("tercet.cli.verify", "Check a receipt: that it is genuine, and that what it names is gone."),
    "audit": ("tercet.cli.audit", "Read the journal, check it, or anchor its head in a signed file."),
    "promote": ("tercet.cli.promote", "Let a model read memories once, and keep what it made of them."),
    "demote": ("tercet.cli.demote", "Drop a KV cache or an adapter; the texts it was made from stay."),
    "merge": ("tercet.cli.merge", "Make one adapter of several, if it passes its gate."),
    "externalise": ("tercet.cli.externalise", "Ask an adapter what it knows, and keep that as texts."),
    "migrate-model": ("tercet.cli.migrate_model", "Make adapters and KV caches again for another model."),
    "learn": ("tercet.cli.learn", "Let a model learn one user's memories, by a job."),
    "chat": ("tercet.cli.chat", "Ask a model that remembers."),
    "import": ("tercet.cli.import_", "Take in a Tercet archive, a chat export or a document."),
    "export": ("tercet.cli.export", "Write memories, with all their versions, to a portable archive."),
    "eval": ("tercet.cli.eval_", "Measure recall on a labelled conversation."),
    "worker": ("tercet.cli.worker", "Run the jobs that wait: vectors to make, bytes to scrub."),
    "reembed": ("tercet.cli.reembed", "Move the vectors to the space of the embedder that is here."),
    "doctor": ("tercet.cli.doctor", "Check the vault against itself, and repair what can be repaired."),
    "backup": ("tercet.cli.backup", "Copy the vault, while it is in use, into a new folder."),
    "stats": ("tercet.cli.stats", "Show numbers about the vault."),
    "access": ("tercet.cli.access", "List, add and remove the rules of who may do what."),
    "share": ("tercet.cli.share", "Let somebody else read memories: for a purpose, so often, until then."),
    "grants": ("tercet.cli.grants", "List what you let others read, and what they let you."),
    "revoke": ("tercet.cli.revoke", "Take back what you let somebody read, at once."),
    "keys": ("tercet.cli.keys", "Make, list, rotate and revoke API keys."),
    "seal": ("tercet.cli.seal", "Keep the vault's files under keys, rotate those, or destroy a tenant's."),
    "demo": ("tercet.cli.demo", "See it work on a conversation that comes with Tercet."),
}
"""Name -> (module, what `tercet --help` says of it)."""

EXIT: Mapping[type[BaseException], int] = {
    InvalidRequest: 2,
    Refused: 3,
    MissingMemory: 4,
    MissingBranch: 4,
    MissingGrant: 4,
    TercetError: 1,
    OSError: 1,
}
"""Class -> exit code; a class not named here has that of its nearest base."""
INTERRUPTED, BROKEN_PIPE = 130, 141


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (`sys.argv` if left out) and return its exit code.

    0 done, 1 failed, 2 bad usage, 3 refused by policy, 4 not found, 130 interrupted, 141 the reader of a pipe is gone.
    """
    from tercet.cli import out

    words = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _run(words)
        sys.stdout.flush()
    except SystemExit as end:  # argparse, after --help
        return int(end.code or 0)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # What is still buffered would raise again when the interpreter closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except (TercetError, OSError) as error:
        out.complain(error, as_json="--json" in itertools.takewhile(lambda word: word != "--", words))
        return next(EXIT[kind] for kind in type(error).__mro__ if kind in EXIT)
    return code


def _run(words: Sequence[str]) -> int:
    from tercet.cli import options, out

    name, rest = options.split(words)
    if name is None:
        return _without_command(rest)
    if name not in COMMANDS:
        raise InvalidRequest(f"No command {name!r}.{options.suggest(name, COMMANDS)} `tercet --help` lists them.")
    from importlib import import_module

    from tercet.cli.session import Session

    command: Command = import_module(COMMANDS[name][0])
    parser = options.Parser(prog=f"tercet {name}", description=COMMANDS[name][1])
    command.add_arguments(parser)
    options.add_common(parser)
    args = parser.parse(rest)
    with Session(args) as session:
        answer = command.run(session, args)
        out.show(answer, as_json=args.json)
    return answer.code


def _without_command(rest: Sequence[str]) -> int:
    from tercet.cli import options, out

    parser = options.Parser(prog="tercet", description="A memory operating system for AI.")
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    options.add_common(parser)
    parser.usage = "tercet COMMAND [...] [--json] [--store PATH] [--help]"
    width = max(map(len, COMMANDS)) + 2
    parser.epilog = "\n".join(
        ["commands:", *(f"  {name:<{width}}{says}" for name, (_, says) in COMMANDS.items()), "", options.FOOTER]
    )
    args = parser.parse(rest)
    if args.version:
        from tercet import __version__

        out.show(out.Answer({"version": __version__}, [f"tercet {__version__}"]), as_json=args.json)
        return 0
    raise InvalidRequest("Which command? `tercet --help` lists them; `tercet demo` shows what it does.")
