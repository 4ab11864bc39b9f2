"""Stage `verify`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from eosrepro.config.checks import supposes_another_optimizer
from eosrepro.config.params import Config
from eosrepro.config.statements import Claim
from eosrepro.config.values import with_step_size
from eosrepro.records.files import remove_leftovers, save_json, save_table, save_text
from eosrepro.records.places import VERIFY
from eosrepro.records.runs import Record
from eosrepro.stages import outdated
from eosrepro.stages.recorded import published_runs, recorded_runs, step_size_of
from eosrepro.verdicts import characteristics, claims
from eosrepro.views import markdown


def verify(config: Config) -> list[claims.Verdict]:
    """Stage `verify`: a verdict on every declared claim, and what characterises the runs of networks."""
    records = recorded_runs(config.runs.values())
    outdated.warn(config, records.values())
    verdicts = verdicts_on(config, records, config.runs)
    trained = [record for name, record in records.items() if config.run(name).has_examples]
    compared = characteristics.table(trained, published_runs(config, records))
    remove_leftovers(VERIFY)
    save_json(VERIFY / "claims.json", claims.as_json(verdicts))
    save_json(VERIFY / "summary.json", claims.counts(verdicts))
    save_text(VERIFY / "claims.md", markdown.claims_page(verdicts, about=_about_data(config, trained)))
    save_table(VERIFY / "runs.csv", compared)
    save_text(VERIFY / "runs.md", markdown.runs_page(compared))
    return verdicts


def _about_data(config: Config, records: Sequence[Record]) -> str:
    data = sorted({record.origin.data for record in records})
    return f"Profile `{config.profile}`, on {'; '.join(data) or 'no data yet'}"


def verdicts_on(config: Config, records: Mapping[str, Record], names: Collection[str]) -> list[claims.Verdict]:
    """Verdicts on all claims about these runs, from those that are recorded."""
    declared = {key: claim for key, claim in config.claims.items() if claim.run in names}
    others = {
        name: outdated.other_settings_or_data(config.run(name), records[name]) for name in records.keys() & {*names}
    }
    return [_verdict(config, key, claim, records, others.get(claim.run, "")) for key, claim in declared.items()]


def _verdict(config: Config, key: str, claim: Claim, records: Mapping[str, Record], other: str) -> claims.Verdict:
    """Verdict on one claim; `other` says in what the recorded run is not the declared one."""
    run = config.run(claim.run)
    at_scale = (config.active.published or not run.has_examples) and not other
    unfit = supposes_another_optimizer(run, claim)
    beside = records.get(claim.beside) if claim.beside else None
    record = records.get(claim.run)
    cut_off = record is not None and record.summary["steps"] < run.setting.stop.max_steps
    verdict = claims.check(key, claim, record, at_paper_scale=at_scale, cut_off=cut_off, unfit=unfit, beside=beside)
    text = with_step_size(claim.claim, [step_size_of(config, claim.run, records)])
    return replace(verdict, claim=text, reason="; ".join(filter(None, [verdict.reason, other])))
