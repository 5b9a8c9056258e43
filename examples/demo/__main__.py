"""The story of a support agent that is killed mid-run, with a check that each step happens as told.

It needs no model, no key and no database: `python -m examples.demo`, or `make demo`.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.grpc import GrpcSaver
from langgraph.types import StateSnapshot

from examples.demo.agent import ScriptedModel, support_agent
from examples.demo.processes import Agent, DemoFailed, checkpointd
from examples.demo.shop import Shop
from examples.demo.story import Story, checkpoint_id, short

THREAD = "ticket-1042"
CONFIG: RunnableConfig = {"configurable": {"thread_id": THREAD}}


class Demo:
    """The steps of the story, in their order.

    Args:
        target: The server's address.
        shop: The shop that the agent works for.
        interactive: Ask the person at the terminal, instead of answering for them.
        saver: A saver of the demo's own, to read the thread from outside.
        story: Prints the story.
    """

    def __init__(self, target: str, shop: Path, *, interactive: bool, saver: GrpcSaver, story: Story) -> None:
        self._target = target
        self._folder = shop
        self._shop = Shop(shop)
        self._interactive = interactive
        self._story = story
        # The demo's own process never runs this graph. It reads the thread through it.
        self._graph = support_agent(self._shop, ScriptedModel()).compile(checkpointer=saver)

    def run(self) -> None:
        """Runs the steps. Raises DemoFailed if one doesn't happen as told."""
        self.take_ticket_and_die()
        self.finish_in_another_process()
        answer = self.ask_person()
        self.resume_with(answer)
        history = self.show_history()
        self.fork(history, "no" if answer == "yes" else "yes")

    def take_ticket_and_die(self) -> None:
        """A first process runs two nodes and is killed in the third."""
        self._story.heading("A first process takes a customer's ticket, and is killed in mid-run")
        with self._agent("--new", "--stall").alive() as agent:
            for line in agent.lines():
                self._story.say(f"process {agent.pid} | {line}")
                if agent.nodes[-1:] == ["propose"]:
                    break
            expect(agent.nodes == ["read_ticket", "tools", "propose"], f"the nodes that began: {agent.nodes}")
            self._story.say(f"$ kill -9 {agent.pid}", f"process {agent.pid} is gone, and all that it had in memory.")
            agent.kill()
        state = self._graph.get_state(CONFIG)
        expect(state.next == ("propose",), f"the thread stands before {state.next}")
        self._story.say(f"On the server the thread stands before {state.next[0]!r}; what was finished is safe there.")

    def finish_in_another_process(self) -> None:
        """A second process continues with the third node and stops when a human is asked."""
        self._story.heading("A second process goes on where the first one was killed")
        nodes = self._run_agent()
        expect(nodes == ["propose", "ask_human"], f"the nodes that began: {nodes}")
        asked = len(self._shop.calls("look_up"))
        expect(asked == 1, f"the order system was asked {asked} times")
        self._story.say("read_ticket and tools did not run again: the order system was asked once in all.")

    def ask_person(self) -> str:
        """No process of the agent runs while a human thinks."""
        self._story.heading("A human decides; no process waits for them meanwhile")
        state = self._graph.get_state(CONFIG)
        expect(len(state.interrupts) == 1, f"the thread waits for {len(state.interrupts)} answers")
        question = state.interrupts[0].value["question"]
        answer = ""
        while self._interactive and answer not in ("yes", "no"):
            answer = input(f"   {question} [yes/no] ").strip().lower()
        if not self._interactive:
            answer = "yes"
            self._story.say(f"{question} [yes/no] {answer}   (`make demo ARGS=--interactive` asks you)")
        return answer

    def resume_with(self, answer: str) -> None:
        """A third process takes the answer and finishes."""
        self._story.heading("A third process takes the answer and finishes the run")
        nodes = self._run_agent("--answer", answer)
        expect(nodes == ["ask_human", "refund" if answer == "yes" else "decline"], f"the nodes that began: {nodes}")
        paid = self._shop.calls("pay_back")
        expect(len(paid) == (answer == "yes"), f"paid back {len(paid)} times")
        expect(not self._graph.get_state(CONFIG).next, "the run is not finished")

    def show_history(self) -> list[StateSnapshot]:
        """Every step can be inspected."""
        self._story.heading("Every step of the thread can be looked at")
        history = list(self._graph.get_state_history(CONFIG))
        self._story.table(history)
        expect(len(history) == 7, f"the thread has {len(history)} checkpoints")
        return history

    def fork(self, history: list[StateSnapshot], answer: str) -> None:
        """The past is kept: another answer makes another branch."""
        self._story.heading("What if the human had said otherwise? Go back to the question, and answer it differently")
        question = next(state for state in history if state.next == ("ask_human",))
        start = self._graph.update_state(question.config, None)
        nodes = self._run_agent("--checkpoint", checkpoint_id(start), "--answer", answer)
        expect(nodes == ["ask_human", "refund" if answer == "yes" else "decline"], f"the nodes that began: {nodes}")

        self._story.say("", "The thread now has two branches, and both can be read:")
        branches = list(self._graph.get_state_history(CONFIG))
        self._story.table(branches)
        parents = {checkpoint_id(state.parent_config) for state in branches if state.parent_config}
        tips = [state for state in branches if checkpoint_id(state.config) not in parents]
        expect(len(tips) == 2, f"the thread has {len(tips)} branches")
        for tip in tips:
            kept = self._graph.get_state(tip.config)
            self._story.say(f"{short(tip.config)} ends with: {kept.values['messages'][-1].content}")
        endings = {tip.values["messages"][-1].content for tip in tips}
        expect(len(endings) == 2, "both branches end in the same way")
        expect(len(self._shop.calls("pay_back")) == 1, "money was paid back more than once")

    def _run_agent(self, *arguments: str) -> list[str]:
        """Runs the agent in a process of its own and returns the nodes that began there."""
        with self._agent(*arguments).alive() as agent:
            for line in agent.lines():
                self._story.say(f"process {agent.pid} | {line}")
            expect(agent.wait() == 0, f"process {agent.pid} failed")
            return agent.nodes

    def _agent(self, *arguments: str) -> Agent:
        return Agent(["--target", self._target, "--thread", THREAD, "--shop", str(self._folder), *arguments])


def expect(holds: bool, otherwise: str) -> None:
    """Checks that the story is true."""
    if not holds:
        raise DemoFailed(f"this is not as told: {otherwise}")


def interrupted(number: int, frame: object) -> NoReturn:
    """Ends the demo on SIGTERM and SIGHUP as on Ctrl-C."""
    raise KeyboardInterrupt


def main() -> int:
    """Runs the demo and returns its exit code: 0 if everything happened as told."""
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description=__doc__)
    parser.add_argument("--interactive", action="store_true", help="answer the agent's question yourself")
    arguments = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    story = Story()
    try:
        # The folder outlives the server by a moment: PostgreSQL is in it.
        with tempfile.TemporaryDirectory(prefix="checkpointd-demo-") as folder:
            story.heading(
                "Start checkpointd, which brings a PostgreSQL of its own (its folder goes when the demo ends)"
            )
            story.say("$ checkpointd serve --listen 127.0.0.1:0 --data-dir ...")
            with checkpointd(Path(folder, "data")) as (target, server):
                story.say(f"checkpointd ready on {target}")
                with GrpcSaver.from_conn_string(target) as saver:
                    Demo(target, Path(folder), interactive=arguments.interactive, saver=saver, story=story).run()
                story.heading("Stop checkpointd")
                server.terminate()
                expect(server.wait() == 0, f"checkpointd ended with exit code {server.returncode}")
                story.say("Stopped. With a data folder that stays, the thread would be there again at the next start.")
    except DemoFailed as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130
    print("\nDone. Next: README.md, and examples/quickstart.py for a graph in ten lines.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
