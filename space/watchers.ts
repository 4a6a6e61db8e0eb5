/**
 * Who watches the space: the devices that changed since each was last told. Costs nothing while nobody watches; each
 * watcher holds a device at most once, so it is bounded by the number of devices however slowly it is told.
 */

export interface Watchers<Device> {
  /** True while somebody watches: the question that a merge asks first. */
  readonly any: boolean
  mark(device: Device): void
  watch(everyMs: number, changed: (devices: Iterable<Device>) => void): () => void
  close(): void
}

interface Watcher<Device> {
  marked: Set<Device>
  timer: NodeJS.Timeout | null
  toldAt: number
  readonly everyMs: number
  readonly changed: (devices: Iterable<Device>) => void
}

/** `Device`: however the space tells devices apart. */
export function openWatchers<Device>(): Watchers<Device> {
  const watchers = new Set<Watcher<Device>>()

  return {
    get any() {
      return watchers.size > 0
    },
    mark,
    watch,
    close,
  }

  function mark(device: Device) {
    for (const watcher of watchers) {
      watcher.marked.add(device)
      // The first change after a pause is told at once; further ones wait for their turn.
      watcher.timer ??= setTimeout(tell, Math.max(0, watcher.toldAt + watcher.everyMs - performance.now()), watcher)
    }
  }

  function tell(watcher: Watcher<Device>) {
    const { marked } = watcher
    watcher.timer = null
    watcher.marked = new Set()
    watcher.toldAt = performance.now()
    watcher.changed(marked)
  }

  function watch(everyMs: number, changed: (devices: Iterable<Device>) => void): () => void {
    const watcher: Watcher<Device> = {
      marked: new Set(),
      timer: null,
      toldAt: Number.NEGATIVE_INFINITY,
      everyMs,
      changed,
    }
    watchers.add(watcher)
    return () => stop(watcher)
  }

  function stop(watcher: Watcher<Device>) {
    watchers.delete(watcher)
    if (watcher.timer !== null) clearTimeout(watcher.timer)
    watcher.marked.clear()
  }

  function close() {
    for (const watcher of watchers) stop(watcher)
  }
}
