/**
 * Who watches the space: the devices that changed since each was last told. Costs nothing while nobody watches; each
 * watcher holds a device at most once, so it is bounded by the number of devices however slowly it is told.
 */

export interface Watchers {
  /** True while somebody watches: the question that a merge asks first. */
  readonly any: boolean
  mark(index: number): void
  watch(everyMs: number, changed: (indexes: Iterable<number>) => void): () => void
  close(): void
}

interface Watcher {
  marked: Set<number>
  timer: NodeJS.Timeout | null
  toldAt: number
  readonly everyMs: number
  readonly changed: (indexes: Iterable<number>) => void
}

export function openWatchers(): Watchers {
  const watchers = new Set<Watcher>()

  return {
    get any() {
      return watchers.size > 0
    },
    mark,
    watch,
    close,
  }

  function mark(index: number) {
    for (const watcher of watchers) {
      watcher.marked.add(index)
      // The first change after a pause is told at once; further ones wait for their turn.
      watcher.timer ??= setTimeout(tell, Math.max(0, watcher.toldAt + watcher.everyMs - performance.now()), watcher)
    }
  }

  function tell(watcher: Watcher) {
    const { marked } = watcher
    watcher.timer = null
    watcher.marked = new Set()
    watcher.toldAt = performance.now()
    watcher.changed(marked)
  }

  function watch(everyMs: number, changed: (indexes: Iterable<number>) => void): () => void {
    const watcher: Watcher = { marked: new Set(), timer: null, toldAt: Number.NEGATIVE_INFINITY, everyMs, changed }
    watchers.add(watcher)
    return () => stop(watcher)
  }

  function stop(watcher: Watcher) {
    watchers.delete(watcher)
    if (watcher.timer !== null) clearTimeout(watcher.timer)
    watcher.marked.clear()
  }

  function close() {
    for (const watcher of watchers) stop(watcher)
  }
}
