/** The order of a saver's calls: one behind the other where that matters, and reads behind the writes before them. */

/** Queues of work, each under a name, that exist as long as there is something in them. */
export class Queues {
  private readonly tails = new Map<string, Promise<unknown>>();
  private readonly inFlight = new Map<string, Set<Promise<unknown>>>();

  /**
   * Does work behind all work that was given under the same name.
   *
   * @param name - What it goes behind.
   * @param threadId - The thread that it writes to: reads of it wait until the work is done.
   */
  write<T>(name: string, threadId: string, work: () => Promise<T>): Promise<T> {
    const before = this.tails.get(name);
    const done = before === undefined ? work() : before.then(work, work);
    this.tails.set(name, done);
    const writes = this.inFlight.get(threadId) ?? new Set();
    this.inFlight.set(threadId, writes.add(done));
    const settled = () => {
      if (this.tails.get(name) === done) this.tails.delete(name);
      writes.delete(done);
      if (writes.size === 0 && this.inFlight.get(threadId) === writes) this.inFlight.delete(threadId);
    };
    done.then(settled, settled);
    return done;
  }

  /** Waits until the writes on a thread have ended that have begun before this. */
  async settle(threadId: string | undefined): Promise<void> {
    const writes = threadId === undefined ? [...this.inFlight.values()].flatMap((each) => [...each]) : this.inFlight.get(threadId);
    if (writes !== undefined) await Promise.allSettled(writes);
  }
}
