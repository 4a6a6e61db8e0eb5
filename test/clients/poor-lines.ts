/**
 * Real clients publish over poor lines, all at once, while what they talk to is killed and started again; afterwards each
 * message that a client was to send must be there once. A message that the client itself gave up counts as lost: so strict
 * clients do when a broker tells them that it kept nothing of their session.
 */
import { expect } from 'vitest'
import type { ClientPrograms } from '../servers/client-programs.ts'
import { until } from '../waits.ts'
import type { Endpoint } from './endpoint.ts'
import { openFlakyLine } from './flaky-line.ts'
import { exactPublishings, type Publishing, startClient } from './publishing-clients.ts'

/** A broker behind the lines, and what lies behind it. */
export interface Behind {
  readonly mqttPort: number
  killAndRestart(): Promise<void>
  /** The numbers that arrived of a device, each as often as it did. */
  arrived(publishing: Publishing): Promise<readonly number[]>
}

export interface Outcome {
  readonly client: string
  readonly qos: number
  readonly acked: number
  /** Messages that are not there or that the client gave up, and how many of the broker's acknowledged ones are not there. */
  readonly lost: number
  readonly lostAcked: number
  /** Messages that are there twice, or were told of twice. */
  readonly doubled: number
  /** Connections after the first that were told "no session". */
  readonly forgotten: number
  readonly connections: number
  /** Cuts and the like that the line made. */
  readonly faults: number
  /** Why the client gave messages up, and how it ended when it did badly; empty when all was well. */
  readonly remarks: readonly string[]
}

export interface Suffering {
  readonly seed: number
  /** After these numbers of PUBLISH on every line, all lines hold still and what is behind them is killed. */
  readonly kills: readonly number[]
  readonly deniesSessions?: boolean
}

export async function publishOverPoorLines(
  behind: Behind,
  programs: ClientPrograms,
  publishings: readonly Publishing[],
  { seed, kills, deniesSessions = false }: Suffering,
): Promise<Outcome[]> {
  const target = () => behind.mqttPort
  const all = await Promise.all(
    publishings.map(async (publishing, n) => {
      const line = await openFlakyLine({ seed: seed + n, target, stops: kills, deniesSessions })
      return { publishing, line, client: startClient(programs, publishing, line.port) }
    }),
  )
  try {
    for (const kill of kills) {
      await Promise.all(all.map(({ line }) => line.reached(kill)))
      await behind.killAndRestart()
      for (const { line } of all) line.goOn()
    }
    const outcomes: Outcome[] = []
    for (const { publishing, line, client } of all) {
      await until(() => client.hasEnded(), `${publishing.client} at QoS ${publishing.qos} has ended`).catch(error => {
        throw new Error(`${error.message}; ${client.acked.size} acknowledged\n${client.output()}`)
      })
      const { acked, failed, again, exitCode, output } = await client.told
      const arrived = await behind.arrived(publishing)
      const once = new Set(arrived)
      const missing = numbersBelow(publishing.messages).filter(n => !once.has(n))
      outcomes.push({
        client: publishing.client,
        qos: publishing.qos,
        acked: acked.size,
        lost: new Set([...missing, ...failed.keys()]).size,
        lostAcked: missing.filter(n => line.answered.has(n)).length,
        doubled: arrived.length - once.size + again,
        forgotten: line.sessionsPresent.slice(1).filter(isPresent => !isPresent).length,
        connections: line.sessionsPresent.length,
        faults: Object.values(line.faults).reduce((sum, times) => sum + times, 0),
        remarks: [...new Set(failed.values()), ...(exitCode === 0 ? [] : [`exit code ${exitCode}`, output])],
      })
    }
    return outcomes
  } finally {
    for (const { client } of all) client.kill()
    await Promise.all(all.map(({ line }) => line.close()))
  }
}

/** What must hold of every client: lost 0, doubled 0, and no connection after the first without its session. */
export function isWell({ lost, doubled, forgotten, remarks }: Outcome): boolean {
  return lost + doubled + forgotten === 0 && remarks.length === 0
}

/** Every client of `exactPublishings` at once against one endpoint; fails with what is not as it must be, and says the figures. */
export async function expectNothingLost(
  endpoint: Endpoint,
  programs: ClientPrograms,
  { messages, ...suffering }: Suffering & { readonly messages: number },
): Promise<void> {
  const behind = {
    mqttPort: endpoint.mqttPort,
    killAndRestart: () => endpoint.killAndRestart(),
    arrived: async ({ device }: Publishing) => (await endpoint.readings(device)).map(([, value]) => Number(value)),
  }
  const outcomes = await publishOverPoorLines(behind, programs, exactPublishings(messages), suffering)
  process.stderr.write(`${outcomes.map(inOneLine).join('\n')}\n`)
  expect(outcomes.filter(outcome => !isWell(outcome))).toEqual([])
  for (const { acked, faults } of outcomes) {
    expect(acked).toBe(messages)
    expect(faults).toBeGreaterThan(0)
  }
}

function inOneLine({ client, qos, acked, lost, doubled, forgotten, connections, faults }: Outcome): string {
  return `${client}, QoS ${qos}: acked ${acked}, lost ${lost}, doubled ${doubled}; ${connections} connections, ${faults} faults of the line, without session ${forgotten}`
}

function numbersBelow(count: number): number[] {
  return Array.from({ length: count }, (_, n) => n)
}
