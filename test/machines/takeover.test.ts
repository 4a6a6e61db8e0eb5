/** A device that changes its broker, over a real Kafka and a real Redis: served by one at a time, stored once, never offline. */
import { pino } from 'pino'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { hasFate } from '../../errors.ts'
import { choosePlaces, openSpace, openView } from '../../manager/adapters.ts'
import { openRole, type RunningRole } from '../../manager/role.ts'
import { registry } from '../../metrics.ts'
import type { PumpView } from '../../pump/pump.ts'
import { readSettings, type Settings } from '../../settings.ts'
import type { Space } from '../../space/space.ts'
import { acknowledged, connectPacket, openClient, openRaw, ping, publishPacket } from '../broker/harness.ts'
import { kafkaHere, startKafka } from '../servers/kafka-server.ts'
import { redisHere, startRedis, type TestRedis } from '../servers/redis-server.ts'

const DEVICE = 'press-17'
const MESSAGES = 50
const MOVES = 12
const ROUNDS = 5
const TWIN_CONNECTS = 15
const log = pino({ level: 'silent' })

describe.skipIf(!kafkaHere || !redisHere)('a device that connects to another broker', () => {
  const opened: { close(): unknown }[] = []
  let brokers: RunningRole[]
  let view: PumpView
  let space: Space
  let redis: TestRedis

  beforeAll(async () => {
    const [kafka, startedRedis] = await Promise.all([startKafka(), startRedis()])
    redis = startedRedis
    opened.push({ close: kafka.stop }, { close: redis.stop })
    const settings = readSettings({
      KAFKA_BROKERS: kafka.brokers,
      REDIS_URL: redis.url,
      SURGETANK_MQTT_PORT: '0',
      SURGETANK_HTTP_PORT: '0',
    })
    brokers = [await startBroker(settings), await startBroker(settings)]
    const places = choosePlaces(settings)
    view = await openView(places.log, log)
    space = (await openSpace(places.space, false, log)).space
    opened.push(view, space)
  })
  afterAll(async () => {
    for (const part of opened.toReversed()) await part.close()
  })

  it('is known there: what it sends again is acknowledged and not stored again [G1] [G2]', async () => {
    const first = await connectTo(0)
    publish(first, MESSAGES)
    await first.count(MESSAGES + 1)
    const before = await repetitions()
    const second = await connectTo(1)
    await first.closed
    publish(second, MESSAGES)
    await second.count(MESSAGES + 1)
    expect(acknowledged(second)).toEqual(Array.from({ length: MESSAGES }, (_, i) => i + 1))
    expect((await repetitions()) - before).toBe(MESSAGES)
    expect(await readingsAppended(view)).toBe(MESSAGES)
    await second.close()
    await expect.poll(() => isOnline()).toBe(false)
  })

  it('is served by one broker at a time and online all the while, however often it moves [MQTT-3.1.4-2]', async () => {
    let client = await connectTo(0)
    publish(client, 1)
    await client.count(2)
    await expect.poll(() => isOnline()).toBe(true)
    let moving = true
    let seenOffline = 0
    const watching = (async () => {
      while (moving) if ((await isOnline().catch(unlessAway)) === false) seenOffline++
    })()
    for (let move = 1; move <= MOVES; move++) {
      const next = await connectTo(move % 2)
      await client.closed
      client = next
    }
    moving = false
    await watching
    expect(seenOffline).toBe(0)
    await client.close()
    await expect.poll(() => isOnline()).toBe(false)
  })

  it('is stored once and offline in the end when its first try at the other broker breaks off [G2]', async () => {
    // Of a client that was taken over again and again before, the broken try would wait and go before it takes anything.
    const [before, repeated] = [await readingsAppended(view), await repetitions()]
    for (let round = 1; round <= ROUNDS; round++) {
      const first = await connectTo(0, 'press-19')
      publish(first, MESSAGES, round * 1_000, 'press-19')
      await first.count(MESSAGES + 1)
      const broken = await openRaw(brokers[1]?.mqttPort ?? 0)
      broken.send(connectPacket({ clientId: 'press-19' }))
      await new Promise(resolve => setTimeout(resolve, round))
      await broken.close()
      if (round === ROUNDS) break
      const second = await connectTo(1, 'press-19')
      publish(second, MESSAGES, round * 1_000, 'press-19')
      await second.count(MESSAGES + 1)
    }
    await expect.poll(() => isOnline('press-19')).toBe(false)
    expect((await readingsAppended(view)) - before).toBe(ROUNDS * MESSAGES)
    expect((await repetitions()) - repeated).toBe((ROUNDS - 1) * MESSAGES)
  })

  it('is online, and its old connection closed, when Redis stalled while it moved [MQTT-3.1.4-2]', async () => {
    const old = await connectTo(0)
    publish(old, 1)
    await old.count(2)
    await expect.poll(() => isOnline()).toBe(true)
    redis.freeze()
    const next = await connectTo(1).finally(redis.thaw)
    await old.closed
    await ping(next)
    await expect.poll(() => isOnline()).toBe(true)
    await next.close()
    await expect.poll(() => isOnline()).toBe(false)
  })

  it('is offline after it moved and left, also when Redis is emptied after that', async () => {
    const old = await connectTo(0)
    publish(old, 1)
    await old.count(2)
    await expect.poll(() => isOnline()).toBe(true)
    const next = await connectTo(1)
    await old.closed
    await next.close()
    await expect.poll(() => isOnline()).toBe(false)
    // Stays, so that it is seen when its broker has told everything anew.
    const other = await openClient(brokers[0]?.mqttPort ?? 0, { clientId: 'press-18' })
    other.send(publishPacket(1, { topic: 'devices/press-18/telemetry' }))
    await other.count(2)
    await expect.poll(async () => (await space.get('press-18'))?.online).toBe(true)
    await redis.command('FLUSHALL')
    const receivedAt = Date.now() * 1000
    const readings = [{ metric: 'n', ts: receivedAt, receivedAt, value: 1, sentTs: null }]
    for (const device of [DEVICE, 'press-18']) await space.merge([{ device, receivedAt, readings }])
    await expect.poll(async () => (await space.get('press-18'))?.online).toBe(true)
    expect(await isOnline()).toBe(false)
    await other.close()
  })

  it('has each message that is stored acknowledged while another device with its id takes it over all the time', async () => {
    const [appended, repeated] = [await readingsAppended(view), await repetitions()]
    let [acked, sent] = [0, 0]
    const twin = async (name: number) => {
      for (let connects = 0; connects < TWIN_CONNECTS; connects++) {
        const client = await connectTo((name + connects) % 2, 'twin').catch(() => null)
        if (client === null) continue
        while (!client.socket.destroyed) {
          const before = acknowledged(client).length
          publish(client, 1, 1_000_000 * name + sent++, 'twin')
          await client.count(client.received.length + 1).catch(() => {})
          acked += acknowledged(client).length - before
          // The last connection of each goes by itself.
          if (connects === TWIN_CONNECTS - 1 && acknowledged(client).length > 0) await client.close()
        }
      }
    }
    await Promise.all([twin(1), twin(2)])
    await expect.poll(() => isOnline('twin')).toBe(false)
    const unacknowledged = (await readingsAppended(view)) - appended + ((await repetitions()) - repeated) - acked
    // A PUBACK may be under way when the device gives its connection up.
    expect(unacknowledged).toBeLessThanOrEqual(2)
    expect(acked).toBeGreaterThan(TWIN_CONNECTS)
    expect(sent).toBeGreaterThanOrEqual(acked)
  })

  it('is online at the other broker when its first one drains, and offline when that one drains too', async () => {
    await connectTo(0)
    await expect.poll(() => isOnline()).toBe(true)
    await brokers[0]?.stop()
    await expect.poll(() => isOnline()).toBe(false)
    await connectTo(1)
    await expect.poll(() => isOnline()).toBe(true)
    await brokers[1]?.stop()
    await expect.poll(() => isOnline()).toBe(false)
  })

  async function startBroker(settings: Settings): Promise<RunningRole> {
    const failed = (error: unknown) => log.error({ err: error }, 'failed')
    const stopping = new AbortController().signal
    const role = await openRole('broker', choosePlaces(settings), { settings, log, stopping, failed })
    opened.push({ close: role.stop })
    return role
  }

  function connectTo(broker: number, clientId = DEVICE) {
    return openClient(brokers[broker]?.mqttPort ?? 0, { clientId })
  }

  async function isOnline(device = DEVICE): Promise<boolean> {
    return (await space.get(device))?.online === true
  }
})

/** A Redis that does not answer for a moment tells nothing. */
function unlessAway(error: unknown): null {
  if (!hasFate(error, 'retry')) throw error
  return null
}

/** Messages with times of their own, the same each time that `from` is. */
function publish(client: Awaited<ReturnType<typeof openClient>>, messages: number, from = 0, device = DEVICE): void {
  for (let id = 1; id <= messages; id++) {
    const payload = JSON.stringify({ ts: 1_790_000_000_000 + from + id, values: { n: id } })
    client.send(publishPacket(id, { topic: `devices/${device}/telemetry`, payload }))
  }
}

async function repetitions(): Promise<number> {
  const metric = await registry.getSingleMetric('telemetry_messages_repeated_total')?.get()
  return metric?.values[0]?.value ?? 0
}

async function readingsAppended(view: PumpView): Promise<number> {
  const { partitions } = await view.books()
  return partitions.reduce((sum, { readingsAppended }) => sum + readingsAppended, 0)
}
