"""One run of the command line: which vault, which scope, who asks. The vault is opened when it is first needed."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from tercet.cli.options import pair
from tercet.errors import VaultError
from tercet.scope import Caller

if TYPE_CHECKING:
    from tercet.kernel import Tercet
    from tercet.scoped import ScopedMemory
    from tercet.vault.datakeys import Master


class Session:
    """Made from the options that every command has."""

    def __init__(self, args: Namespace) -> None:
        self.args = args

    @property
    def folder(self) -> Path:
        """The vault's folder: `--store`, else TERCET_STORE, else in the user's data folder."""
        named = self.args.store or os.environ.get("TERCET_STORE")
        if named:
            return Path(named).expanduser()
        import platformdirs

        return platformdirs.user_data_path("tercet", appauthor=False)

    @cached_property
    def tercet(self) -> Tercet:
        """The vault, opened; its folder is made if it is not there."""
        return self.open(self.folder)

    @property
    def memory(self) -> ScopedMemory:
        """The scope that the options name, as of the moment that they name."""
        memory = self.scoped(self.tercet, tenant=self.args.tenant, by=self.caller)
        known, valid = getattr(self.args, "as_of", None), getattr(self.args, "valid", None)
        if known is None and valid is None:
            return memory
        return memory.as_of(known=int(known) if known is not None and known.isdecimal() else known, valid=valid)

    @cached_property
    def caller(self) -> Caller:
        """Who asks: whoever the key (`--key`, else TERCET_KEY) makes, else the name that `--as` gives."""
        key = self.args.key or os.environ.get("TERCET_KEY")
        if key:
            return self.tercet.caller(key, purpose=self.args.purpose)
        return Caller(self.args.caller, purpose=self.args.purpose)

    @property
    def master(self) -> Master | None:
        """The master key that the options or the environment name, if they do."""
        from tercet.govern.master import find_master

        return find_master(self.args.sealing, apart_from=self.folder)

    def open(self, folder: Path) -> Tercet:
        """A vault, with the embedder that the options ask for."""
        from tercet.kernel import Tercet

        redaction = dict(pair(one, "--redact") for one in self.args.redact or ())
        embedder = None if self.args.words else "auto"
        return Tercet.open(folder, embedder=embedder, redaction=redaction, sealing=self.args.sealing)

    def scoped(self, tercet: Tercet, *, tenant: str | None, by: Caller | None = None) -> ScopedMemory:
        """The scope that the options name, in another vault and tenant; no key opens another vault."""
        args = self.args
        by = by or Caller(args.caller)
        return tercet.scope(
            tenant=tenant, user=args.user, agent=args.agent, session=args.session, branch=args.branch, by=by
        )

    def existing(self) -> Self:
        """This session, for a command that only makes sense on a vault that is there. Raises VaultError."""
        if not self.folder.is_dir():
            raise VaultError(f"There is no vault at {self.folder}; name one with --store, or `tercet remember` first.")
        return self

    def looking(self) -> Self:
        """This session, for a command that reads: a vault that is not there is empty, which a note on stderr says."""
        if not self.folder.is_dir():
            sys.stderr.write(f"tercet: there is no vault at {self.folder} yet, so it is empty\n")
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if "tercet" in self.__dict__:
            self.tercet.close()
