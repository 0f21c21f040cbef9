"""Machine: Hypothesis chooses the steps of a `Play`. To be imported where it is run only: it's in an extra."""

from __future__ import annotations

from typing import Any, cast

from hypothesis import HealthCheck, Phase, Verbosity, configuration, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from gotasks.broker import Broker
from gotasks.conformance.kit.play import Chosen, Play
from gotasks.conformance.kit.proxy import Proxy
from gotasks.conformance.scene import Scene

#: The steps, each as often as it should be chosen.
_MENU = (
    *["write"] * 7,
    *["acquire"] * 4,
    *["enqueue"] * 2,
    *["repeat"] * 3,
    *["crash"] * 2,
    *["purge"] * 2,
    "acquire_one",
    "extend",
    "cancel",
    "look",
)


def run(
    it: Scene, clients: list[Broker], *, examples: int, steps: int, crashes: int, proxy: Proxy | None = None
) -> None:
    """Run so many examples of so many steps. Raises what the first that fails has raised.

    At most `crashes` of the steps are deaths of a client: each takes the time of a lease.
    """
    left = iter(range(crashes, 0, -1))
    failures: list[BaseException] = []
    cuts: Any = st.none()
    if proxy is not None:
        cuts = st.one_of(
            st.none(),
            st.tuples(st.just("requests"), st.integers(0, 300)),
            st.tuples(st.just("replies"), st.integers(0, 60)),
        )

    class Machine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.play = Play(it, clients, proxy)

        def do(self, name: str, *chosen: Chosen) -> None:
            if failures:  # it wants to see it once more, which may take long and show nothing
                raise failures[0]
            try:
                getattr(self.play, name)(*chosen)
            except BaseException as error:
                failures.append(error)
                raise

        # One rule, not one for each step: Hypothesis leaves rules out of an example, and without `acquire` or `write`
        # there is little to see.
        @rule(
            name=st.sampled_from(_MENU),
            client=st.integers(0, 1),
            queue=st.integers(0, 1),
            which=st.integers(0, 7),
            kind=st.sampled_from(["checkpoint", "checkpoint", "release", "release", "ack"]),
            flag=st.booleans(),
            rare=st.sampled_from([False, False, False, True]),
            cut=cuts,
        )
        def step(self, name: str, **drawn: Any) -> None:
            if name == "crash":
                name = name if next(left, None) else "acquire"
            self.do(name, Chosen(**drawn))

        @invariant()
        def count(self) -> None:
            self.do("count")

        def teardown(self) -> None:
            if not failures:
                self.do("finish")

    chosen = settings(
        max_examples=examples,
        stateful_step_count=steps,
        database=None,
        deadline=None,
        phases=[Phase.generate],  # the model tells the story of a task; a shrunk run would tell no more
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.quiet,
        report_multiple_bugs=False,
    )
    factory = cast(Any, seed(it.random.randrange(2**32))(Machine))
    home = getattr(configuration, "__hypothesis_home_directory", None)
    configuration.set_hypothesis_home_dir(it.directory)  # else it leaves a directory wherever it is run
    try:
        run_state_machine_as_test(factory, settings=chosen)
    except BaseException:
        if failures:
            raise failures[0] from None
        raise
    finally:
        configuration.set_hypothesis_home_dir(home)
