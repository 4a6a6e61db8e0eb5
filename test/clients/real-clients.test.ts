/**
 * Clients that others wrote, with persistent sessions, over lines that cut and withhold, while Surgetank is killed and started
 * again: each of their messages is stored once. [G1] [G2]
 *
 * `SURGETANK_CLIENT_SEED=7 npx vitest run test/clients/real-clients.test.ts` has the faults at other moments.
 */
import { execFileSync } from 'node:child_process'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { buildClientPrograms, type ClientPrograms, clientProgramsHere } from '../servers/client-programs.ts'
import { type Endpoint, openOneBroker } from './endpoint.ts'
import { expectNothingLost } from './poor-lines.ts'

const MESSAGES = 1_000
const seed = Number(process.env.SURGETANK_CLIENT_SEED ?? 1)

describe.skipIf(!clientProgramsHere)('clients that others wrote, over poor lines', () => {
  let programs: ClientPrograms
  let endpoint: Endpoint
  beforeAll(async () => {
    programs = buildClientPrograms()
    endpoint = await openOneBroker()
  })
  afterAll(async () => {
    await endpoint.close()
    programs.remove()
  })

  it('lose nothing and double nothing through cuts, withheld answers and SIGKILL of the whole, and find their sessions', async () => {
    await expectNothingLost(endpoint, programs, { seed, messages: MESSAGES, kills: [300, 650] })
  })

  it('are told in words that MQTT 5 is not spoken: autopaho', () => {
    const [command = '', ...words] = programs.autopaho
    const told = execFileSync(command, [...words, String(endpoint.mqttPort)], { env: programs.env, encoding: 'utf8' })
    expect(told).toMatch(/reason: 132|unsupported protocol version/i)
  })
})
