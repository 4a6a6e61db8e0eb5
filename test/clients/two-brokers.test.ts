/**
 * What clients keep at two brokers that share Kafka and Redis, behind a balancer that sends each connection to the other one:
 * the same as at one, while both are killed; and what is left when Redis is emptied.
 *
 * `TEST_CLIENTS_ALL=1 npx vitest run test/clients/two-brokers.test.ts` has every case of one broker here as well, and 1,000
 * messages of each real client instead of 200: minutes more.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { buildClientPrograms, clientProgramsHere } from '../servers/client-programs.ts'
import { kafkaHere } from '../servers/kafka-server.ts'
import { redisHere } from '../servers/redis-server.ts'
import { until } from '../waits.ts'
import { openTwoBrokers, type TwoBrokers } from './endpoint.ts'
import { describeHabits } from './habits.ts'
import { expectNothingLost } from './poor-lines.ts'
import { openConnected } from './raw-line.ts'
import { describeSessions } from './sessions-kept.ts'

const isWhole = process.env.TEST_CLIENTS_ALL === '1'

describe.skipIf(!kafkaHere || !redisHere)('two brokers', () => {
  let endpoint: TwoBrokers
  beforeAll(async () => {
    endpoint = await openTwoBrokers()
  })
  afterAll(() => endpoint.close())

  describeSessions(() => endpoint)
  if (isWhole) describeHabits(() => endpoint, 2)

  it('an emptied Redis is told again of who is connected, and a client that is away is told that nothing was kept', async () => {
    const open = (id: string) => openConnected(endpoint.mqttPort, id, { isClean: false })
    const connected = () => endpoint.metric('telemetry_clients_connected')
    const others = await connected()
    const away = await open('away-meanwhile')
    await away.close()
    await until(async () => (await connected()) <= others, 'it is away')
    // One at each broker: when both are there again, both brokers have found the Redis that came back.
    const ids = ['stays-meanwhile-1', 'stays-meanwhile-2']
    const stay = [await open('stays-meanwhile-1'), await open('stays-meanwhile-2')]
    await endpoint.emptyRedis()
    for (const id of ids) await until(() => endpoint.isInRedis(id), 'the connected one is written again')
    await Promise.all(stay.map(line => line.close()))
    for (const id of ids) expect((await open(id)).packets[0]).toBe('20020100')
    expect((await open('away-meanwhile')).packets[0]).toBe('20020000')
  })

  it.skipIf(!clientProgramsHere)('lose nothing and double nothing of real clients over poor lines', async () => {
    const programs = buildClientPrograms()
    try {
      await expectNothingLost(endpoint, programs, {
        seed: 2,
        messages: isWhole ? 1_000 : 200,
        kills: isWhole ? [300, 650] : [100],
      })
    } finally {
      programs.remove()
    }
  })
})
