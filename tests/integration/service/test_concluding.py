"""An experiment that is concluded gives everybody the winner, and its report stays as it was."""

from __future__ import annotations

import shlex
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace

from topbill import cli, reporting
from topbill.backup import back_up, restore
from topbill.domain.errors import BadRequest, Conflict, NotFound
from topbill.domain.records import RewardEvent
from topbill.engine.api import DecideRequest
from topbill.launch import conclude, keep_reports
from topbill.log import open_log
from topbill.log.orders import give_order, in_force
from topbill.migration import migrate, migrate_down
from topbill.reporting.experiment.wording import since_conclusion_sentence
from topbill.reporting.queries.database import experiments
from topbill.service.app import create_app
from topbill.service.follower import Follower
from topbill.service.settings import Settings
from topbill.spec import Conclusion, load
from topbill.worker.erasure import erase_unit
from topbill.worker.loop import Worker

from ...conftest import ARTWORK, write
from ...processes import topbill

QUICK = ARTWORK.replace("window: 1s", "window: 1ms")
QUICK += "traffic: 50%\nholdout: 10%\nbudget_ms: 10000\n"
UNITS = [f"u{number}" for number in range(300)]


class Site:
    """A service and a worker, each of which goes on by one step at a time."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.data = settings.data
        self.engine = create_app(settings).engine
        self.follower = Follower(settings, self.engine)
        self.log = open_log(settings.log_path)
        self.follower.step()

    def decide(
        self, units: Sequence[str] = UNITS, key: str = "art"
    ) -> dict[str, tuple[str | None, str]]:
        """Each unit's variant and reason; every second decision is rewarded."""
        requests = [DecideRequest(experiment=key, unit=unit) for unit in units]
        decisions = [self.engine.decide(request) for request in requests]
        plays = [
            RewardEvent(decision_id=d.decision_id, event_id="p", event="play") for d in decisions
        ]
        self.log.append(decisions, plays[::2])
        return {decision.unit: (decision.variant, decision.reason) for decision in decisions}

    def publish(self) -> None:
        self.follower.step()
        worker = Worker(self.settings.experiments, self.data)
        worker.step()
        worker.finish()

    def conclude(self, winner: str | None = "thompson", *, again: bool = False) -> None:
        conclude(self.data, "art", winner, who="ann", because="more plays", again=again)
        self.follower.step()

    def report(self, **asked: object) -> reporting.Report:
        return reporting.load_experiment_report("art", self.data, **asked)  # type: ignore[arg-type]

    def close(self) -> None:
        self.follower.close()
        self.log.close()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(write(tmp_path / "experiments", QUICK), tmp_path / "data")


@pytest.fixture
def site(settings: Settings) -> Iterator[Site]:
    """One whose experiment has decided and was published."""
    with closing(Site(settings)) as site:
        site.decide()
        site.publish()
        yield site


def test_everybody_but_the_held_out_gets_the_winner(site: Site) -> None:
    before = site.decide()
    site.conclude()
    after = site.decide()
    held_out = {unit for unit, answer in before.items() if answer[1] == "holdout"}
    assert held_out
    assert {unit for unit, answer in after.items() if answer == (None, "holdout")} == held_out
    assert {after[unit] for unit in UNITS if unit not in held_out} == {("thompson", "policy")}
    assert any(reason == "not_in_experiment" for _, reason in before.values()), "traffic was 50%"


def test_where_nobody_won_everybody_gets_the_controls_order(site: Site) -> None:
    site.conclude(None)
    assert set(site.decide().values()) == {(None, "holdout"), (None, "not_in_experiment")}
    decision = site.engine.decide(DecideRequest(experiment="art", unit="u1"))
    assert [placed.action for placed in decision.slate] == ["c"]


def test_the_report_is_the_one_of_then_whatever_is_decided_later(site: Site) -> None:
    before = site.report()
    site.conclude()
    site.decide([f"later{number}" for number in range(200)])
    site.publish()
    after = site.report()
    assert after.conclusion is not None
    assert (after.conclusion.who, after.conclusion.winner) == ("ann", "thompson")
    assert (after.conclusion.because, after.conclusion.is_frozen) == ("more plays", True)
    assert (after.status, before.status) == ("concluded", "running")
    assert after.ab == before.ab
    assert (after.variants, after.published_at) == (before.variants, before.published_at)

    anew = site.report(anew=True)
    assert anew.conclusion is not None
    assert not anew.conclusion.is_frozen
    assert anew.units == before.units, "what came later is not of the comparison"
    assert site.report(method="fixed").units == before.units
    text = reporting.to_html(after)
    assert "Concluded" in text
    assert "thompson won, and everybody gets it, because: more plays." in text


def test_the_holdout_goes_on_telling_what_the_winner_is_worth(site: Site) -> None:
    site.conclude()
    site.publish()
    assert site.report().since_conclusion is None, "nobody came since"
    later = site.decide([f"later{number}" for number in range(400)])
    site.publish()
    held_out = sum(reason == "holdout" for _, reason in later.values())
    readout = site.report().since_conclusion
    assert readout is not None
    assert (readout.units, readout.units_in_variants) == (held_out, 400 - held_out)
    assert readout.share == pytest.approx(0.1)
    assert not readout.sample_ratio.alarm
    said = since_conclusion_sentence(site.report())
    assert said.startswith(f"Since then, thompson against the {held_out} units held out: ")
    assert "Since then, thompson" in reporting.to_html(site.report())


def test_concluding_again_needs_to_be_said_and_keeps_the_numbers(site: Site) -> None:
    site.conclude()
    kept = site.log.conclusions("art")
    site.conclude()
    assert site.log.conclusions("art") == kept, "the same is no change"
    with pytest.raises(Conflict, match="thompson won; expected the same, or --again"):
        site.conclude("editorial")
    site.decide()
    site.publish()
    site.conclude("editorial", again=True)
    site.publish()
    first, second = site.log.conclusions("art")
    assert (second.winner, second.report, second.revision) == (
        "editorial",
        first.report,
        first.revision,
    )
    report = site.report()
    assert report.conclusion is not None
    assert report.conclusion.winner == "editorial"
    assert site.engine.find("art").experiment.winner is not None
    assert {v for v, _ in site.decide().values()} == {None, "editorial"}


def test_it_is_taken_up_again_by_resume_or_by_another_file(site: Site) -> None:
    before = site.decide()
    site.conclude()
    give_order(site.log, "art", None, "ann", "too early")
    site.publish()
    assert site.decide() == before
    assert site.report().conclusion is None
    site.conclude()
    write(site.settings.experiments, QUICK + "title: Once more\n")
    site.publish()
    assert site.decide() == before
    assert site.report().conclusion is None


def test_a_stop_of_what_is_concluded_keeps_the_conclusion(site: Site) -> None:
    site.conclude()
    give_order(site.log, "art", "stopped", "ann", "")
    site.publish()
    assert set(site.decide().values()) == {(None, "not_in_experiment")}
    assert site.report().conclusion is not None


def test_a_paused_one_goes_on_with_the_winner(site: Site) -> None:
    give_order(site.log, "art", "paused", "ann", "")
    site.follower.step()
    site.conclude()
    assert "thompson" in {variant for variant, _ in site.decide().values()}


def test_a_file_says_how_it_ended_and_its_report_is_kept_once(site: Site) -> None:
    said = "conclusion: {winner: uniform, because: It is simpler, by: bo}\n"
    write(site.settings.experiments, QUICK + said)
    site.publish()
    assert {v for v, _ in site.decide().values()} == {None, "uniform"}
    before = site.report()
    assert before.conclusion is not None
    assert not before.conclusion.is_frozen
    (line,) = keep_reports(site.data)
    assert (line.winner, line.who, line.because) == ("uniform", "bo", "It is simpler")
    site.decide()
    site.publish()
    assert keep_reports(site.data) == []
    after = site.report()
    assert after.conclusion is not None
    assert after.conclusion.is_frozen
    assert after.units == before.units
    (listed,) = experiments(site.data)
    assert listed.status == "concluded"


def test_the_kept_report_outlasts_erasure_backup_and_a_migration_there_and_back(
    site: Site, tmp_path: Path
) -> None:
    def kept(report: reporting.Report) -> reporting.Report:
        return replace(report, since_conclusion=None)

    site.conclude()
    site.publish()
    before = kept(site.report())
    unit = next(unit for unit, answer in site.decide().items() if answer[1] == "policy")
    site.publish()
    erase_unit(site.data, unit)
    site.publish()
    assert kept(site.report()) == before
    assert site.report(anew=True).units == before.units - 1
    assert unit.encode() not in zlib.decompress(site.log.conclusions()[0].report)

    restore(back_up(site.data, tmp_path / "backups"), tmp_path / "restored")
    other = Site(Settings(site.settings.experiments, tmp_path / "restored"))
    with closing(other):
        other.publish()
        assert kept(other.report()) == before
    migrate_down(tmp_path / "restored")
    migrate(tmp_path / "restored")
    with closing(Site(other.settings)) as again:
        again.publish()
        assert kept(again.report()) == before


@pytest.mark.parametrize(
    ("key", "winner", "error", "message"),
    [
        ("other", None, NotFound, "expected one of art"),
        ("art", "tompson", BadRequest, "did you mean thompson"),
    ],
)
def test_what_cannot_be_concluded_is_named(
    site: Site, key: str, winner: str | None, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        conclude(site.data, key, winner, who="ann", because="")
    assert site.log.conclusions() == []


def test_what_never_decided_cannot_be_concluded(settings: Settings) -> None:
    with closing(Site(settings)) as site:
        with pytest.raises(NotFound, match="start the worker"):
            site.conclude()
        site.publish()
        with pytest.raises(BadRequest, match="never decided in a variant"):
            site.conclude()
        assert in_force(site.log) == []


def test_the_command_says_what_it_did(site: Site) -> None:
    line = ["conclude", "art", "--data", site.data, "--winner", "thompson"]
    answer = topbill(*line, "--no-winner", "--because", "x")
    assert answer.returncode == 1
    assert "either --winner VARIANT or --no-winner" in answer.stderr
    done = topbill(*line, "--because", "more plays")
    assert done.returncode == 0, done.stderr
    said = done.stdout
    assert "art is concluded" in said
    assert "everybody gets thompson, but for those held out" in said
    assert site.report().ab is not None
    site.publish()
    shown = topbill("report", "art", "--data", site.data)
    assert shown.returncode == 0, shown.stderr
    assert "thompson won, and everybody gets it" in " ".join(shown.stdout.split())


PAGE = Path(__file__).parents[3] / "docs" / "experiments.md"
SECTION = PAGE.read_text().partition("## How it ends")[2].partition("\n## ")[0]


def test_the_commands_of_the_docs_do_what_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    text = QUICK.replace("experiment: art", "experiment: home-artwork")
    settings = Settings(
        write(tmp_path / "experiments", text.replace("uniform: {", "linucb: {")), tmp_path / "data"
    )
    lines = [line[2:] for line in SECTION.splitlines() if line.startswith("$ ")]
    assert len(lines) == 6
    said = []
    with closing(Site(settings)) as site:
        site.decide(key="home-artwork")
        site.publish()
        for line in lines:
            _, *arguments = shlex.split(line)
            cli.app(arguments, result_action="return_value")
            said.append(" ".join(capsys.readouterr().out.split()))
            site.publish()
    concluded, kept, anew, again, listed, resumed = said
    assert "everybody gets thompson, but for those held out" in concluded
    assert "These numbers are as they stood then" in kept
    assert "These numbers were worked out anew" in anew
    assert "everybody gets linucb" in again
    assert "concluded" in listed
    assert "linucb won" in listed
    assert "is as its file says" in resumed


def test_the_block_of_the_docs_is_a_conclusion(site: Site) -> None:
    block = SECTION.partition("```yaml\n")[2].partition("```")[0]
    write(site.settings.experiments, QUICK + block)
    ended = load(site.settings.experiments / "art.yaml").conclusion
    assert ended == Conclusion("thompson", "More completed plays", "discovery")
