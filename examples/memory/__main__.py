"""The story of an agent that remembers across threads and processes, with a check that each step happens as told.

It needs no model, no key and no database: `python -m examples.memory`, or `make demo-memory`.
"""

from __future__ import annotations

import signal
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from langgraph.checkpoint.grpc import GrpcSaver, GrpcStore, ItemConflictError

from examples.demo.__main__ import expect, interrupted
from examples.demo.processes import Agent, DemoFailed, checkpointd
from examples.demo.story import Story
from examples.memory.agent import TEXT, archive, place

USER = "ada"


class Demo:
    """The steps of the story, in their order.

    Args:
        target: The server's address.
        saver: A saver of the demo's own.
        store: A store on the saver's connections.
        story: Prints the story.
    """

    def __init__(self, target: str, saver: GrpcSaver, store: GrpcStore, story: Story) -> None:
        self._target = target
        self._saver = saver
        self._store = store
        self._story = story

    def run(self) -> None:
        """Runs the steps. Raises DemoFailed if one doesn't happen as told."""
        self.learn()
        self.know_in_another_thread()
        self.meet()
        self.look()
        self.summarize_and_delete()

    def learn(self) -> None:
        """A first process learns something in one thread."""
        self._story.heading("A first process talks with Ada, in one thread, and notes what she says of herself")
        said = self._say("monday", "Hello! I prefer trains to planes. My dog is called Bo.")
        expect(said == ["This is visit 1."], f"it said {said}")
        facts = {item.value["text"] for item in self._store.search(place(USER, "facts"))}
        expect(facts == {"I prefer trains to planes.", "My dog is called Bo."}, f"the facts: {facts}")
        self._story.say(f"In the store, outside the thread: {' / '.join(sorted(facts))}")

    def know_in_another_thread(self) -> None:
        """A second process knows it in another thread."""
        self._story.heading("A second process, in another thread, finds what fits to what she asks: by its words")
        said = self._say("tuesday", "Which train should I take?")
        expect(said == ["This is visit 2. I remember: I prefer trains to planes."], f"it said {said}")

    def meet(self) -> None:
        """Two processes change one profile at the same time, and none of it is lost."""
        self._story.heading("Two processes count a visit in her profile in the same moment, and none is lost")
        with ExitStack() as both:
            meet = both.enter_context(tempfile.TemporaryDirectory(prefix="checkpointd-demo-"))
            agents = [
                both.enter_context(self._agent(thread, "Hello again!", "--meet", meet).alive())
                for thread in ("wednesday-a", "wednesday-b")
            ]
            said = [line for agent in agents for line in self._listen(agent)]
        read = sorted(line for line in said if line.startswith("read"))
        expect(read == [f"read a profile with {visits} visits" for visits in (2, 2, 3)], f"they {read}")
        profile = self._store.get(place(USER), "profile")
        expect(profile is not None and profile.value == {"visits": 4}, f"the profile: {profile}")
        self._story.say("Both read 2 visits. The second to store was told, read 3, and stored 4.")

    def look(self) -> None:
        """A put says which version it was made from."""
        self._story.heading("A put that was made from an old version is refused")
        item = self._store.search(place(USER), filter={"visits": {"$gt": 3}})[0]
        self._store.put(place(USER), "profile", {"visits": 5}, index=False)
        try:
            self._store.put(place(USER), "profile", {"visits": 0}, if_version_match=item.version)  # type: ignore[attr-defined]
        except ItemConflictError as conflict:
            self._story.say(f"ItemConflictError: {conflict}")
        else:
            expect(False, "the old version was stored")

    def summarize_and_delete(self) -> None:
        """A thread is deleted, and its summary stays."""
        self._story.heading("A thread that is over leaves a summary, and is deleted")
        summary = archive(self._saver, self._store, "monday", USER)
        self._story.say(f"The summary: {summary}")
        gone = self._saver.get_tuple({"configurable": {"thread_id": "monday"}}) is None
        expect(gone, "the thread is still there")
        said = self._say("thursday", "What is my dog called?")
        expect("My dog is called Bo." in said[0] and "Talked about" in said[0], f"it said {said}")

    def _say(self, thread: str, text: str) -> list[str]:
        """Has a process of its own say something to the agent, and returns what it answers."""
        self._story.say(f"Ada, in thread {thread!r}: {text}")
        with self._agent(thread, text).alive() as agent:
            return self._listen(agent)

    def _listen(self, agent: Agent) -> list[str]:
        said = list(agent.lines())
        for line in said:
            self._story.say(f"process {agent.pid} | {line}")
        expect(agent.wait() == 0, f"process {agent.pid} failed")
        return said

    def _agent(self, thread: str, text: str, *options: str) -> Agent:
        arguments = ["--target", self._target, "--thread", thread, "--user", USER, *options, text]
        return Agent(arguments, module="examples.memory.worker")


def main() -> int:
    """Runs the demo and returns its exit code: 0 if everything happened as told."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    story = Story()
    try:
        with tempfile.TemporaryDirectory(prefix="checkpointd-demo-") as folder:
            story.heading("Start checkpointd, which brings a PostgreSQL of its own")
            with checkpointd(Path(folder, "data")) as (target, server):
                story.say(f"checkpointd ready on {target}")
                with GrpcSaver(target) as saver, GrpcStore.from_saver(saver, text=TEXT) as store:
                    Demo(target, saver, store, story).run()
                server.terminate()
                expect(server.wait() == 0, f"checkpointd ended with exit code {server.returncode}")
    except DemoFailed as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130
    print("\nDone. Next: docs/memory.md.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
