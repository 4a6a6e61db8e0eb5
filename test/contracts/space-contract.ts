/**
 * What every space keeps, whichever adapter: run over each of them. `open` gives an empty space of its own.
 */
import fc from 'fast-check'
import { afterEach, describe, expect, test } from 'vitest'
import type { DeviceState, MetricState } from '../../model/device-state.ts'
import { LIMITS } from '../../model/limits.ts'
import { encodeLine, LINE_FORMAT, type Message, parseLines } from '../../model/message.ts'
import type { Value } from '../../model/reading.ts'
import type { PageQuery, Space } from '../../space/space.ts'
import { byBytes, ODD_DEVICE_IDS } from '../model/odd-ids.ts'
import { until } from '../waits.ts'
import { bursts, lastSent } from './space-bursts.ts'
import { expectedStates, type Step, steps } from './space-oracle.ts'

export type OpenSpace = (options: { readonly devicesMax: number }) => Promise<Space>

const ALL: PageQuery = { after: null, limit: 1000, search: null, online: null }

export function spaceContract(adapter: string, openSpace: OpenSpace, options: { readonly runs: number }) {
  const opened: Space[] = []
  const open = async (devicesMax = 1000) => {
    const space = await openSpace({ devicesMax })
    opened.push(space)
    return space
  }
  afterEach(async () => {
    for (const space of opened.splice(0)) await space.close()
  })

  describe(`the space contract, kept by ${adapter}`, () => {
    orderContract(open, options.runs)
    presenceContract(open)
    pageContract(open)
    oddIdContract(open)
    claimContract(open)
    watchContract(open)

    test('a space is not warm until its rebuild is finished, and there is nothing to rebuild then', async () => {
      const space = await open()
      expect(space.warm).toBe(false)
      const rebuild = await space.claimRebuild()
      expect(rebuild?.lost.aborted).toBe(false)
      await rebuild?.finish()
      expect(space.warm).toBe(true)
      expect(await space.claimRebuild()).toBeNull()
      await rebuild?.release()
      expect(space.warm).toBe(true)
    })
  })
}

function orderContract(open: () => Promise<Space>, runs: number) {
  test('[G4] any order, any repetition and any batching of readings and presence give the same state', async () => {
    const arrivals = fc.array(steps, { maxLength: 25 }).chain(taken =>
      fc.record({
        taken: fc.constant(taken),
        order: fc.array(fc.nat(Math.max(0, taken.length - 1)), { maxLength: 30 }),
        batch: fc.integer({ min: 1, max: 7 }),
      }),
    )
    await fc.assert(
      fc.asyncProperty(arrivals, async ({ taken, order, batch }) => {
        // Some first and in another order, then all of them: each at least once, many twice.
        const repeated = taken.length === 0 ? [] : order.map(at => taken[at] as Step)
        const space = await open()
        await arrive(space, [...repeated, ...taken.toReversed()], batch)
        const states = await space.page(ALL)
        expect(states.map(exactly)).toEqual(expectedStates(taken).map(exactly))
      }),
      { numRuns: runs },
    )
  })

  test('[G4] of a burst the last sent wins, of a list its last element, in any order, over units and through the log', async () => {
    await fc.assert(
      fc.asyncProperty(bursts, async ({ messages, order, batch }) => {
        const [space, rebuilt] = [await open(), await open()]
        const shuffled = order.map(at => messages[at] as Message)
        await arrive(
          space,
          shuffled.map(message => ({ message })),
          batch,
        )
        const states = await space.page(ALL)
        expect(states.map(exactly)).toEqual(expectedStates(messages.map(message => ({ message }))).map(exactly))
        for (const { device, metrics } of states) {
          if (device.startsWith('own')) expect(valuesOf(metrics)).toEqual(lastSent(messages, device))
        }
        const lines = shuffled.map(message => encodeLine(message)).join('\n')
        await rebuilt.merge(parseLines(lines, LINE_FORMAT))
        expect((await rebuilt.page(ALL)).map(exactly)).toEqual(states.map(exactly))
      }),
      { numRuns: runs },
    )
  })

  test('[G4] of two messages in one ms the later one stays, also when its value is the lesser one and it came late', async () => {
    for (const order of [
      [0, 1],
      [1, 0],
    ]) {
      const space = await open()
      const at = 1_763_640_000_123_000
      const both = [true, false].map((on, place) => {
        const receivedAt = at + place
        const readings = [{ metric: 'on', ts: receivedAt, receivedAt, value: on, sentTs: null }]
        return { device: 'door', receivedAt, readings }
      })
      for (const which of order) {
        await space.merge([both[which] as Message])
        await space.settled()
      }
      const newest = { metric: 'on', ts: at + 1, receivedAt: at + 1, value: false }
      expect(await space.get('door')).toEqual({ device: 'door', online: false, lastSeen: at + 1, metrics: [newest] })
    }
  })

  test('[G4] an older reading never replaces a newer state, and a late one still counts as heard', async () => {
    const space = await open()
    await space.merge([message('press-1', 2000, [['temperature', 1900, 21.5]])])
    await space.merge([message('press-1', 3000, [['temperature', 1800, 99]])])
    expect(await space.get('press-1')).toEqual({
      device: 'press-1',
      online: false,
      lastSeen: 3_000_000,
      metrics: [{ metric: 'temperature', ts: 1_900_000, receivedAt: 2_000_000, value: 21.5 }],
    })
  })

  const inOrder: Value[] = [-1, -0, 0, 1.5, 2n ** 60n, 2n ** 61n, false, true, '', 'a', 'b', 'ba', '\uffff', '😀', null]
  test.each(inOrder.slice(1).map((greater, at) => [inOrder[at] as Value, greater] as const))(
    '[G4] of %o and %o at the same moment the second stays, in either order',
    async (lesser, greater) => {
      for (const values of [
        [lesser, greater],
        [greater, lesser],
      ] as const) {
        const space = await open()
        for (const value of values) {
          await space.merge([message('press-1', 1000, [['m', 900, value]])])
          await space.settled()
        }
        expect((await space.get('press-1'))?.metrics[0]?.value).toBe(greater)
      }
    },
  )

  test('metrics stand in the order of the bytes of their names, and any name is only a name', async () => {
    const space = await open()
    const named = ['😀', '\uffff', 'a', '__proto__', 'A', 'constructor', 'é', '0', 'a.b']
    await space.merge([
      message(
        '__proto__',
        1000,
        named.map((name, at) => [name, 900, at]),
      ),
    ])
    const metrics = (await space.get('__proto__'))?.metrics.map(({ metric }) => metric)
    expect(metrics).toEqual(['0', 'A', '__proto__', 'a', 'a.b', 'constructor', 'é', '\uffff', '😀'])
  })

  test('a device with as many metrics as it may have keeps each of them', async () => {
    const space = await open()
    const readings = Array.from(
      { length: LIMITS.metricsPerDeviceMax },
      (_, at) => [`m${at}`, 900, `text ${at}`] as const,
    )
    for (const reading of readings)
      await space.merge([message('press-1', 1000, [reading]), message('press-2', 1000, [reading])])
    const held = new Map((await space.get('press-1'))?.metrics.map(({ metric, value }) => [metric, value]))
    expect(held).toEqual(new Map(readings.map(([metric, , value]) => [metric, value])))
  })
}

function presenceContract(open: () => Promise<Space>) {
  test('presence goes by its time, and offline wins at the same time', async () => {
    const space = await open()
    await space.merge([message('press-1', 1000, [['m', 900, 1]])])
    await space.mergePresence([{ device: 'press-1', online: true, at: 1500 }])
    await space.mergePresence([{ device: 'press-1', online: false, at: 1400 }])
    expect(await space.get('press-1')).toMatchObject({ online: true, lastSeen: 1_500_000 })
    await space.mergePresence([{ device: 'press-1', online: false, at: 1500 }])
    await space.mergePresence([{ device: 'press-1', online: true, at: 1500 }])
    expect(await space.get('press-1')).toMatchObject({ online: false, lastSeen: 1_500_000 })
  })

  test('a device that only connected is not listed, and is online from its first reading on', async () => {
    const space = await open()
    await space.mergePresence([{ device: 'press-1', online: true, at: 1500 }])
    expect(await space.get('press-1')).toBeNull()
    expect(await space.counts()).toEqual({ devices: 0, online: 0 })
    await space.merge([message('press-1', 1000, [['m', 900, 1]])])
    expect(await space.get('press-1')).toMatchObject({ online: true, lastSeen: 1_500_000 })
    expect(await space.counts()).toEqual({ devices: 1, online: 1 })
  })

  test('counts are those of the listed devices', async () => {
    const space = await open()
    await space.merge(['a', 'b', 'c'].map(device => message(device, 1000, [['m', 900, 1]])))
    await space.mergePresence(['a', 'b'].map(device => ({ device, online: true, at: 1100 })))
    await space.mergePresence([{ device: 'a', online: false, at: 1200 }])
    expect(await space.counts()).toEqual({ devices: 3, online: 1 })
  })
}

function pageContract(open: () => Promise<Space>) {
  // More than one block of any sorted index, listed in an order that has nothing to do with their names.
  const ids = Array.from({ length: 2500 }, (_, at) => `Press-${(at * 7919) % 2500}.${at % 7}`)
  const sorted = ids.toSorted()
  const filled = async () => {
    const space = await open()
    await space.merge(ids.map(device => message(device, 1000, [['m', 900, 1]])))
    await space.mergePresence(ids.filter((_, at) => at % 3 === 0).map(device => ({ device, online: true, at: 1100 })))
    return space
  }
  const walk = async (space: Space, query: Omit<PageQuery, 'after'>) => {
    const seen: string[] = []
    for (let after: string | null = null; ; after = seen.at(-1) as string) {
      const page = (await space.page({ ...query, after })).map(({ device }) => device)
      expect(page.length).toBeLessThanOrEqual(query.limit)
      seen.push(...page)
      if (page.length < query.limit) return seen
    }
  }

  test('pages list every device once, in order of the bytes of their ids', async () => {
    expect(await walk(await filled(), { limit: 97, search: null, online: null })).toEqual(sorted)
  })

  test('a page may begin after an id that does not exist', async () => {
    const space = await filled()
    const after = 'Press-2000.'
    const [first] = await space.page({ ...ALL, after, limit: 1 })
    expect(first?.device).toBe(sorted.find(id => id > after))
    expect(await space.page({ ...ALL, after: '~' })).toEqual([])
  })

  test('a search finds a part of an id in any case, and its signs mean only themselves', async () => {
    const space = await filled()
    for (const search of ['ress-24', 'PRESS-1', '9.3', '.', '.*', 'no such', '[', '\\']) {
      const expected = sorted.filter(id => id.toLowerCase().includes(search.toLowerCase()))
      expect(await walk(space, { limit: 50, search, online: null })).toEqual(expected)
    }
  })

  test('the online filter goes with a search and with pages', async () => {
    const space = await filled()
    const online = new Set(ids.filter((_, at) => at % 3 === 0))
    const expected = (want: boolean) => sorted.filter(id => online.has(id) === want && id.includes('7'))
    expect(await walk(space, { limit: 31, search: '7', online: true })).toEqual(expected(true))
    expect(await walk(space, { limit: 31, search: '7', online: false })).toEqual(expected(false))
  })

  test('many devices are read at once, without those that are not known', async () => {
    const space = await filled()
    const states = await space.getMany([sorted[5] as string, 'nobody', sorted[1] as string])
    expect(states.map(({ device }) => device)).toEqual([sorted[5], sorted[1]])
  })
}

function oddIdContract(open: () => Promise<Space>) {
  // Each also as the beginning of others, so that the end of an id meets every character.
  const ids = [...new Set(ODD_DEVICE_IDS.flatMap(id => [id, ...[' ', '!', '~', 'é', 'z'].map(more => id + more)]))]
  const isOnline = (_: string, at: number) => at % 2 === 0
  const filled = async () => {
    const space = await open()
    await space.merge(ids.map(device => message(device, 1000, [['m', 900, device]])))
    await space.mergePresence(ids.filter(isOnline).map(device => ({ device, online: true, at: 1100 })))
    return space
  }

  test('ids of any script and sign keep their values, and their pages the order of their bytes', async () => {
    const space = await filled()
    for (const online of [null, true, false]) {
      const wanted = ids.filter((id, at) => online === null || isOnline(id, at) === online)
      const seen: DeviceState[] = []
      for (let after: string | null = null; ; after = seen.at(-1)?.device ?? null) {
        const page = await space.page({ after, limit: 7, search: null, online })
        seen.push(...page)
        if (page.length < 7) break
      }
      expect(seen.map(({ device }) => device)).toEqual(wanted.toSorted(byBytes))
      for (const { device, metrics } of seen) expect(metrics).toMatchObject([{ metric: 'm', value: device }])
    }
    expect(await space.counts()).toEqual({ devices: ids.length, online: ids.filter(isOnline).length })
    expect((await space.getMany(ids)).map(({ device }) => device)).toEqual(ids)
  })

  test('an id of any script and sign goes offline, and is told to who watches', async () => {
    const space = await filled()
    const told = new Set<string>()
    const stop = space.watch(1, devices => {
      for (const device of devices) told.add(device)
    })
    await space.mergePresence(ids.map(device => ({ device, online: false, at: 1200 })))
    await until(() => ids.filter(isOnline).every(id => told.has(id)), 'all are told')
    stop()
    expect(await space.counts()).toEqual({ devices: ids.length, online: 0 })
    expect(await space.page({ ...ALL, online: true })).toEqual([])
  })

  test.each([
    ['GERÄT', 'Gerät 7'],
    ['ПРЕСС', 'пресс-1'],
    ['\u{10400}', '\u{10428}-1'],
    ['|B)*[', '(a|b)*[c]^$'],
    ['\u{1f321}\ufe0f', '\u{1f321}\ufe0f'],
    ['" OR', null],
  ])('a search for %s finds %s', async (search, id) => {
    const space = await open()
    const devices = [...ODD_DEVICE_IDS, 'пресс-1', '\u{10428}-1', 'press-1']
    await space.merge(devices.map(device => message(device, 1000, [['m', 900, 1]])))
    const found = await space.page({ ...ALL, search })
    expect(found.map(({ device }) => device)).toEqual(id === null ? [] : [id])
  })
}

function claimContract(open: (devicesMax?: number) => Promise<Space>) {
  test('metrics of a device are claimed up to their bound exactly, and those it has stay claimed', async () => {
    const space = await open()
    const answers = Array.from({ length: LIMITS.metricsPerDeviceMax + 5 }, (_, at) =>
      space.claimMetric('press-1', `m${at}`),
    )
    expect(answers.filter(answer => answer === 'ok')).toHaveLength(LIMITS.metricsPerDeviceMax)
    expect(answers.slice(-5)).toEqual(Array(5).fill('too_many_metrics'))
    expect(space.claimMetric('press-1', 'm0')).toBe('ok')
    expect(space.claimMetric('press-2', 'another')).toBe('ok')
  })

  test('devices are claimed up to their bound exactly, and merged ones count', async () => {
    const space = await open(3)
    await space.merge([message('a', 1000, [['m', 900, 1]])])
    expect(['b', 'c', 'd', 'a', 'b'].map(device => space.claimMetric(device, 'm'))).toEqual([
      'ok',
      'ok',
      'too_many_devices',
      'ok',
      'ok',
    ])
  })

  test('what is claimed and not merged shows nowhere', async () => {
    const space = await open()
    await space.merge([message('a', 1000, [['m', 900, 1]])])
    expect(space.claimMetric('a', 'claimed')).toBe('ok')
    expect(space.claimMetric('b', 'claimed')).toBe('ok')
    expect((await space.page(ALL)).map(({ device, metrics }) => [device, metrics.map(({ metric }) => metric)])).toEqual(
      [['a', ['m']]],
    )
    expect(await space.get('b')).toBeNull()
    expect(await space.counts()).toEqual({ devices: 1, online: 0 })
  })

  test('a claimed device is listed once its presence comes', async () => {
    const space = await open()
    expect(space.claimMetric('b', 'claimed')).toBe('ok')
    await space.mergePresence([{ device: 'b', online: true, at: 1000 }])
    expect(await space.get('b')).toEqual({ device: 'b', online: true, lastSeen: 1_000_000, metrics: [] })
  })
}

function watchContract(open: () => Promise<Space>) {
  test('a watcher is told each device that changed, in few calls, until it stops', async () => {
    const space = await open()
    const told: (readonly string[])[] = []
    let wake = () => {}
    const stop = space.watch(40, devices => {
      told.push(devices)
      wake()
    })
    const toldOf = async (device: string) => {
      while (!told.flat().includes(device)) await new Promise<void>(resolve => (wake = resolve))
    }
    for (let ts = 0; ts < 500; ts++) await space.merge([message('a', 1000 + ts, [['m', ts, ts]])])
    await toldOf('a')
    await space.merge([message('b', 1000, [['m', 900, 1]])])
    await space.mergePresence([{ device: 'c', online: true, at: 1000 }])
    await space.merge([message('d', 1000, [['m', 900, 1]])])
    await toldOf('d')
    expect(new Set(told.flat())).toEqual(new Set(['a', 'b', 'd']))
    expect(told.length).toBeLessThan(250)
    stop()
    const calls = told.length
    const marks = await new Promise<readonly string[]>(resolve => {
      space.watch(1, resolve)
      void space.merge([message('e', 1000, [['m', 900, 1]])])
    })
    expect(marks).toEqual(['e'])
    expect(told).toHaveLength(calls)
  })
}

async function arrive(space: Space, arriving: readonly Step[], batch: number) {
  for (let from = 0; from < arriving.length; from += batch) {
    const together = arriving.slice(from, from + batch)
    for (const step of together) if (step.claim) space.claimMetric(step.claim, 'claimed')
    await space.merge(together.flatMap(({ message }) => message ?? []))
    await space.mergePresence(together.flatMap(({ presence }) => presence ?? []))
    // Now and then: what is settled meets what comes later in another place than what still waits does.
    if (from % 2 === 0) await space.settled()
  }
}

function valuesOf(metrics: readonly MetricState[]): Map<string, Value> {
  return new Map(metrics.map(({ metric, value }) => [metric, value]))
}

/** toEqual takes 0 and -0 for equal under nothing but Object.is; spelled out here so that a failure shows which it was. */
function exactly(state: DeviceState) {
  const metrics = state.metrics.map(metric => ({
    ...metric,
    bits: Object.is(metric.value, -0) ? '-0' : `${metric.value}`,
  }))
  return { ...state, metrics }
}

/** Times in ms, as a clock gives them. */
function message(device: string, ms: number, readings: readonly (readonly [string, number, Value])[]): Message {
  const receivedAt = ms * 1000
  const inUs = readings.map(([metric, at, value]) => {
    return { metric, ts: at * 1000, receivedAt, value, sentTs: at * 1000 }
  })
  return { device, receivedAt, readings: inUs }
}
