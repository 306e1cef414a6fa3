"""What an experiment file may say of Vowpal Wabbit, and the command line that it becomes."""

from __future__ import annotations

import re
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec.structs import replace


class VwExploration(NamedTuple):
    """What an exploration needs to learn rewards in [0, 1] seen as costs in [-1, 0].

    `uniform_share` is mixed in where VW itself would give actions probability zero. `reproducible`
    is false where VW draws random numbers while it learns: it doesn't store how far they got, so
    that a state which was loaded in between goes on to other weights.
    """

    options: str
    uniform_share: float
    reproducible: bool = True


_REGRET_BOUND = "--cb_type mtr --cb_min_cost -1 --cb_max_cost 0"
EXPLORATIONS: dict[str, VwExploration] = {
    "epsilon": VwExploration("--cb_type mtr --clip_p 0.2", 0.05),
    "softmax": VwExploration("--softmax --lambda 20 --cb_type mtr --clip_p 0.2", 0.0),
    "bag": VwExploration("--bag 5 --cb_type mtr --clip_p 0.2", 0.02, reproducible=False),
    "cover": VwExploration("--cover 5 --cb_type mtr --clip_p 0.2", 0.02, reproducible=False),
    "first": VwExploration("--first 500 --cb_type mtr --clip_p 0.2", 0.02),
    "squarecb": VwExploration(f"--squarecb --gamma_scale 100 {_REGRET_BOUND}", 0.0),
    "regcb": VwExploration(f"--regcb --mellowness 0.01 {_REGRET_BOUND}", 0.02),
    "regcbopt": VwExploration(f"--regcbopt --mellowness 0.01 {_REGRET_BOUND}", 0.02),
    "rnd": VwExploration("--rnd 3 --cb_type mtr --clip_p 0.2", 0.02, reproducible=False),
    "synthcover": VwExploration("--synthcover --cb_type mtr --clip_p 0.2", 0.02),
}
"""The explorations of --cb_explore_adf by name."""

_NUMBER = r"-?\d+(\.\d+)?([eE]-?\d+)?"
_NUMERIC = (
    "lambda gamma_scale gamma_exponent mellowness cb_min_cost cb_max_cost bag cover first rnd "
    "rnd_alpha rnd_invlambda psi synthcoversize synthcoverpsi clip_p learning_rate l power_t "
    "initial_t l1 l2 bit_precision b"
)
_FLAGS = (
    "softmax squarecb regcb regcbopt synthcover nounif greedify coin adaptive normalized sgd "
    "invariant noconstant"
)
_OPTIONS = {
    **dict.fromkeys(_NUMERIC.split(" "), _NUMBER),
    **dict.fromkeys(_FLAGS.split(" "), ""),
    "cb_type": "(ips|dr|mtr|dm)",
    "interactions": "[safp]{2,3}",
    "q": "[safp]{2}",
}
"""Options that `args` may hold, with the pattern of their value; empty for a flag."""


def check_args(args: str) -> list[str]:
    """The free options as a list, each known and of the right form; ValueError tells the first that
    is not.
    """
    words, out = args.split(), []
    while words:
        word = words.pop(0)
        match = re.fullmatch(r"--?([a-z]\w*)", word)
        if match is None or match[1] not in _OPTIONS:
            raise ValueError(
                f"args: {word!r} is not an option that may be set; known are "
                f"{', '.join(sorted(_OPTIONS))}"
            )
        name = match[1]
        # VW reads -softmax as several options of one letter, and doesn't know --q.
        written = f"-{name}" if len(name) == 1 else f"--{name}"
        if word != written:
            raise ValueError(f"args: got {word!r}; expected {written!r}")
        out.append(word)
        pattern = _OPTIONS[name]
        if pattern:
            value = words.pop(0) if words else ""
            if not re.fullmatch(pattern, value):
                raise ValueError(f"args: {word} got {value!r}, expected {pattern}")
            out.append(value)
    return out


_NAMESPACE = r"^[A-Za-z][A-Za-z0-9_.-]{0,63}$"
Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]


class VWParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`exploration` with costs and clipping that suit rewards in [0, 1]; `args` adds to VW's own
    options.
    """

    exploration: Annotated[
        Literal[
            "epsilon",
            "softmax",
            "bag",
            "cover",
            "first",
            "squarecb",
            "regcb",
            "regcbopt",
            "rnd",
            "synthcover",
        ]
        | None,
        msgspec.Meta(
            description="exploration of --cb_explore_adf; if absent, what suits the rate of "
            "rewards and the number of actions, or squarecb where args are given"
        ),
    ] = None
    epsilon: Annotated[
        Share | None,
        msgspec.Meta(description="uniform share; by default what the exploration needs"),
    ] = None
    args: Annotated[
        str,
        msgspec.Meta(
            description="further options, such as '--learning_rate 0.1 --power_t 0 -q aa'"
        ),
    ] = ""

    context_namespace: Annotated[
        str,
        msgspec.Meta(
            pattern=_NAMESPACE,
            description="where a model of VW's own (start_from) has the context's features",
        ),
    ] = "User"
    action_namespace: Annotated[
        str,
        msgspec.Meta(
            pattern=_NAMESPACE,
            description="where a model of VW's own (start_from) has the actions' features",
        ),
    ] = "Action"

    def __post_init__(self) -> None:
        check_args(self.args)
        # Who tunes VW's options tunes one exploration: what it was before there was a choice.
        if self.args and self.exploration is None:
            msgspec.structs.force_setattr(self, "exploration", "squarecb")

    def command(self, seed: int) -> list[str]:
        """The options of the workspace; the caller's come last and replace ours."""
        own = check_args(self.args)
        defaults = EXPLORATIONS[self.own_exploration].options.split()
        remaining: list[str] = []
        while defaults:
            word = defaults.pop(0)
            value = defaults.pop(0) if _OPTIONS[word.lstrip("-")] else None
            if word in own:
                continue
            remaining.append(word)
            if value is not None:
                remaining.append(value)
        command = ["--cb_explore_adf", "--quiet", "--random_seed", str(seed % 2**31)]
        command += ["-q", "sa", "-q", "sf"]
        # The other explorations get their uniform share from Topbill, which mixes it in exactly.
        if self.own_exploration == "epsilon":
            command += ["--epsilon", str(self.uniform_share)]
        # VW writes the options into the model, so that they are checked when it is loaded.
        return command + remaining + own

    @property
    def own_exploration(self) -> str:
        """The exploration of a learner with these parameters."""
        return self.exploration or "squarecb"

    def settings(self, context_size: int) -> dict[str, VWParams]:
        """Name → parameters of each learner: those that the file says, or `BY_RATE`, which sees
        squares and products too of a context that is small.
        """
        if self.exploration is not None:
            return {self.own_exploration: self}
        settings = {}
        for name, setting in BY_RATE.items():
            epsilon = setting.epsilon if self.epsilon is None else self.epsilon
            is_curved = name != RARELY and context_size <= SMALL_CONTEXT
            args = f"{setting.args} {PRODUCTS}" if is_curved else setting.args
            settings[name] = replace(setting, epsilon=epsilon, args=args)
        return settings

    @property
    def uniform_share(self) -> float:
        """The share of decisions that is uniform, at least."""
        if self.epsilon is not None:
            return self.epsilon
        if self.exploration is not None:
            return EXPLORATIONS[self.own_exploration].uniform_share
        return min(setting.uniform_share for setting in BY_RATE.values())


FEW_ACTIONS = 3
"""Up to so many actions are few."""
SMALL_CONTEXT = 10
"""Up to so many numbers a context is small."""
PRODUCTS = "--interactions ssa"
"""Weights of each action over squares and products of the context."""
RARELY, AMONG_FEW, AMONG_MANY = "rare", "few", "many"
BY_RATE = {
    RARELY: VWParams(exploration="epsilon", epsilon=0.03, args="-l 0.15"),
    AMONG_FEW: VWParams(exploration="squarecb", epsilon=0.01, args="-l 2"),
    AMONG_MANY: VWParams(exploration="synthcover", epsilon=0.01, args="-l 2"),
}
"""What suits rare rewards, whose noise asks for small steps, and common ones among few and many
actions: no single setting suits all streams."""
