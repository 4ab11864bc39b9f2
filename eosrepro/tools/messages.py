"""What the command line says. A failure with a known cause is one message and an exit code, not a traceback."""

from __future__ import annotations

from math import isnan
from typing import TYPE_CHECKING, Any, NoReturn

import click

from eosrepro.catalog import did_you_mean
from eosrepro.errors import REDUCE_MEMORY, EosreproError, is_out_of_memory, wants_traceback
from eosrepro.stages import blame
from eosrepro.views import terminal

if TYPE_CHECKING:
    import pandas as pd

    from eosrepro.config.runs import Run

INTERRUPTED = "Interrupted. The same command goes on from its last checkpoint, or anew where there is none yet"
GOING_ON = ("train", "diagnose", "sweep", "farm", "work")  # from where they were interrupted


class Group(click.Group):
    """Ends known failures in one message and their exit code; names the nearest command for a mistyped one."""

    def main(self, *args: Any, **options: Any) -> Any:
        terminal.show_what_can_be_shown()
        return super().main(*args, **options)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except EosreproError as error:
            self._tell(ctx, error)
        except KeyboardInterrupt:
            click.echo(INTERRUPTED if ctx.invoked_subcommand in GOING_ON else "Interrupted", err=True)
            ctx.exit(1)
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            click.echo(f"Error: {where}{error.strerror or error}", err=True)
            ctx.exit(1)
        except (MemoryError, RuntimeError, ValueError) as error:
            if not is_out_of_memory(error):
                self._tell(ctx, error)
            click.echo(f"Error: out of memory ({error}). {REDUCE_MEMORY}", err=True)
            ctx.exit(1)
        except Exception as error:
            self._tell(ctx, error)

    def _tell(self, ctx: click.Context, error: Exception) -> NoReturn:
        """End in the message of an error that has one; else raise it: it is a bug, or its traceback is asked for."""
        told = blame.told(error) or (error if isinstance(error, EosreproError) else None)
        if told is None or wants_traceback():
            raise error
        click.echo(f"Error: {told}", err=True)
        ctx.exit(told.exit_code)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = self.list_commands(ctx)
        if args and args[0] not in known and not args[0].startswith("-"):
            ctx.fail(f"no command {args[0]!r}{did_you_mean(args[0], known)} (there are: {', '.join(known)})")
        return super().resolve_command(ctx, args)


def snapshots(run: Run) -> str:
    """How many a run has kept, and what they take on disk."""
    from eosrepro.records.places import train_folder
    from eosrepro.stages.estimate import in_words

    sizes = [path.stat().st_size for path in (train_folder(run.experiment, run.name) / "snapshots").glob("*")]
    return f"{len(sizes):,} snapshots, {in_words(sum(sizes))}"


def sharpness(table: pd.DataFrame) -> str:
    """What was found of the sharpness of a run."""
    first, last, products = table["sharpness"].iloc[0], table["sharpness"].iloc[-1], table["products"].mean()
    ends = " → ".join("not finite" if isnan(value) else f"{value:.4g}" for value in (first, last))
    return f"sharpness {ends}, at most {table['sharpness'].max():.4g}; {products:.1f} Hessian products each"


def warn_of_audits(run: str, table: pd.DataFrame, rtol: float) -> None:
    """Say where Lanczos from a random vector found more."""
    missed = table[table["sharpness"] < table["audit_sharpness"] * (1 - rtol)]
    if len(missed):
        steps = ", ".join(map(str, missed["step"]))
        found = f"the sharpness of {run} falls short of its audit by more than its rtol at step {steps}"
        click.echo(f"Warning: {found}: lower rtol", err=True)
