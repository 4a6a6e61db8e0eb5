/** A child that ends, fails, or is being started while it is told to stop. Its time is driven by hand. */
import { pino } from 'pino'
import { describe, expect, it } from 'vitest'
import { SurgetankError } from '../../errors.ts'
import {
  type Child,
  type ChildEnd,
  FAILED_PAUSE_MS,
  PAUSE_MS_MAX,
  PAUSE_MS_MIN,
  STEADY_MS,
  supervise,
} from '../../manager/supervise.ts'

const ENDED: ChildEnd = { how: '1', error: null }
const CORRUPT = new SurgetankError('log_corrupt', 'Chunk 7.')

describe('a child process that ends', () => {
  it('is started again after a pause that grows up to a bound', async () => {
    const stage = openStage()
    const supervised = await stage.supervise()
    for (let restarts = 0; restarts < 8; restarts++) {
      stage.endNewest(ENDED)
      await stage.passPause()
    }
    expect(stage.pauses.slice(0, 4)).toEqual([1, 2, 4, 8].map(times => times * PAUSE_MS_MIN))
    expect(stage.pauses.slice(-2)).toEqual([PAUSE_MS_MAX, PAUSE_MS_MAX])
    expect(supervised).toMatchObject({ up: true, failure: null })
    await supervised.stop()
    expect(stage.running()).toBe(0)
  })

  it('is started again soon when it had run for a while', async () => {
    const stage = openStage()
    const supervised = await stage.supervise()
    for (let restarts = 0; restarts < 4; restarts++) {
      stage.endNewest(ENDED)
      await stage.passPause()
    }
    stage.wait(STEADY_MS)
    stage.endNewest(ENDED)
    await stage.passPause()
    expect(stage.pauses.at(-1)).toBe(PAUSE_MS_MIN)
    await supervised.stop()
  })

  it('and cannot be started is tried again and again, with the same growing pause', async () => {
    const stage = openStage()
    const supervised = await stage.supervise()
    stage.failStarts(new Error('no memory'))
    stage.endNewest(ENDED)
    for (let tries = 0; tries < 3; tries++) await stage.passPause()
    expect(supervised).toMatchObject({ up: false, failure: null })
    stage.failStarts(null)
    await stage.passPause()
    expect(stage.pauses).toEqual([1, 2, 4, 8].map(times => times * PAUSE_MS_MIN))
    expect(supervised.up).toBe(true)
    await supervised.stop()
  })

  it('is left alone once its end is expected', async () => {
    const stage = openStage()
    const supervised = await stage.supervise()
    supervised.expectEnd()
    stage.endNewest(ENDED)
    await supervised.stop()
    expect(stage).toMatchObject({ starts: 1, pauses: [] })
  })
})

describe('a child process that cannot go on until an operator acts', () => {
  it('is tried again slowly, and what it said is shown until it runs steadily', async () => {
    const stage = openStage()
    const supervised = await stage.supervise()
    stage.endNewest({ how: '1', error: CORRUPT })
    await stage.passPause()
    expect(stage.pauses).toEqual([FAILED_PAUSE_MS])
    expect(supervised).toMatchObject({ up: true, failure: CORRUPT })
    stage.wait(STEADY_MS)
    expect(supervised.failure).toBeNull()
    await supervised.stop()
  })

  it('is the same when it is its start that says so', async () => {
    const stage = openStage()
    const supervised = await stage.supervise()
    stage.failStarts(CORRUPT)
    stage.endNewest(ENDED)
    await stage.passPause()
    await stage.paused()
    expect(stage.pauses).toEqual([PAUSE_MS_MIN, FAILED_PAUSE_MS])
    expect(supervised).toMatchObject({ up: false, failure: CORRUPT })
    await supervised.stop()
    expect(stage.starts).toBe(2)
  })

  it('rejects the first start', async () => {
    const stage = openStage()
    stage.failStarts(CORRUPT)
    await expect(stage.supervise()).rejects.toBe(CORRUPT)
  })
})

describe('a stop leaves nothing running', () => {
  it('while the child is being started', async () => {
    const stage = openStage()
    const supervised = await stage.supervise()
    const letStart = stage.holdStarts()
    stage.endNewest(ENDED)
    await stage.passPause()
    const stopped = supervised.stop()
    letStart()
    await stopped
    expect(stage).toMatchObject({ starts: 2, stops: 1 })
    expect(stage.running()).toBe(0)
  })

  it('and a kill of one that is being started is no slower', async () => {
    const stage = openStage()
    const supervised = await stage.supervise()
    const letStart = stage.holdStarts()
    stage.endNewest(ENDED)
    await stage.passPause()
    supervised.kill()
    letStart()
    await supervised.stop()
    expect(stage).toMatchObject({ starts: 2, stops: 0 })
    expect(stage.running()).toBe(0)
  })

  it('and tells a start under way, which may then give up', async () => {
    const stage = openStage()
    const supervised = await stage.supervise()
    stage.holdStarts({ heedStop: true })
    stage.endNewest(ENDED)
    await stage.passPause()
    await supervised.stop()
    expect(stage.running()).toBe(0)
  })

  it('in the middle of a pause', async () => {
    const stage = openStage()
    const supervised = await stage.supervise()
    stage.endNewest(ENDED)
    await stage.paused()
    await supervised.stop()
    expect(stage.starts).toBe(1)
  })
})

/** Children that only a test ends, and pauses that only a test lets pass. */
function openStage() {
  const pauses: number[] = []
  const living = new Set<(end: ChildEnd) => void>()
  let now = 0
  let starts = 0
  let stops = 0
  let failing: unknown = null
  let holding = async (_signal: AbortSignal): Promise<void> => {}
  let pausing: (() => void) | null = null

  return {
    pauses,
    get starts() {
      return starts
    },
    get stops() {
      return stops
    },
    supervise: () =>
      supervise({ name: 'child', log: pino({ level: 'silent' }), start, clock: { now: () => now, pause } }),
    running: () => living.size,
    wait: (ms: number) => (now += ms),
    failStarts: (error: unknown) => (failing = error),
    holdStarts,
    endNewest: (end: ChildEnd) => [...living].at(-1)?.(end),
    paused,
    passPause,
  }

  async function start(signal: AbortSignal): Promise<Child> {
    starts++
    if (failing !== null) throw failing
    await holding(signal)
    let end = (_end: ChildEnd) => {}
    const ended = new Promise<ChildEnd>(resolve => (end = resolve))
    living.add(end)
    void ended.then(() => living.delete(end))
    const kill = () => end({ how: 'SIGKILL', error: null })
    const stop = async () => {
      stops++
      end({ how: '0', error: null })
    }
    return { ended, stop, kill }
  }

  /** The next starts wait until the returned function is called; or fail when they are told to stop, if they heed that. */
  function holdStarts({ heedStop = false } = {}): () => void {
    let letStart = () => {}
    const held = new Promise<void>(resolve => (letStart = resolve))
    holding = signal => {
      if (!heedStop) return held
      return new Promise((_, reject) => signal.addEventListener('abort', () => reject(new Error('given up'))))
    }
    return letStart
  }

  function pause(ms: number, signal: AbortSignal): Promise<void> {
    pauses.push(ms)
    return new Promise(resolve => {
      pausing = resolve
      signal.addEventListener('abort', () => resolve())
    })
  }

  async function paused(): Promise<void> {
    while (pausing === null) await turn()
  }

  /** Lets the pause pass that comes next, and what follows it happen. */
  async function passPause(): Promise<void> {
    await paused()
    const before = starts
    pausing?.()
    pausing = null
    while (starts === before) await turn()
    await turn()
  }
}

function turn(): Promise<void> {
  return new Promise(resolve => setImmediate(resolve))
}
