/**
 * Clients that others wrote, each a process with a persistent session (clean=0) that publishes numbered readings of one device
 * and keeps a window of them under way.
 *
 * Arguments of each program: port, client id, QoS, messages, window, and the `ts` of message 0 in ms (message n has n more) or
 * `none` for payloads without one. The device is named as the client; payload n is {"n":n}, or {"ts":…,"values":{"n":n}}.
 * It prints `acked n` when its library says that message n is done, `failed n why` when it says that it never will be, and
 * exits with 0 when each has been told of.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { CLIENT_NAMES, type ClientName, type ClientPrograms } from '../servers/client-programs.ts'

export interface Publishing {
  readonly client: ClientName
  readonly device: string
  readonly qos: 1 | 2
  readonly messages: number
  readonly hasTs: boolean
}

/**
 * What each client does exactly over a poor line. At QoS 2 two of them need a `ts`, at any broker: Paho for Python sends a
 * message anew after its PUBREL when a connection ends before its CONNACK (`_messages_reconnect_reset_out`), and Paho for Go
 * keeps the PUBLISH until PUBCOMP, and sends it again after its PUBREL (`net.go`, `resume`).
 */
export function exactPublishings(messages: number): Publishing[] {
  return CLIENT_NAMES.flatMap((client, n) =>
    ([1, 2] as const).map(qos => {
      const hasTs = qos === 1 || client === 'Paho (Python)' || client === 'Paho (Go)'
      return { client, qos, hasTs, messages, device: `device-${n}-of-qos-${qos}` }
    }),
  )
}

/** What a client's user was told. */
export interface Told {
  readonly acked: ReadonlySet<number>
  /** Message and why. */
  readonly failed: ReadonlyMap<number, string>
  /** How often a message was told of again. */
  readonly again: number
  readonly exitCode: number | null
  /** What else it printed, the last of it. */
  readonly output: string
}

export interface RunningClient {
  /** Resolves when it has ended. */
  readonly told: Promise<Told>
  hasEnded(): boolean
  /** Messages acknowledged so far. */
  readonly acked: ReadonlySet<number>
  output(): string
  kill(): void
}

export const WINDOW = 16
const OUTPUT_CHARACTERS_MAX = 4_000

export function startClient(programs: ClientPrograms, publishing: Publishing, port: number): RunningClient {
  const { client, device, qos, messages, hasTs } = publishing
  const [command = '', ...words] = programs.commandOf(client)
  const tsFrom = hasTs ? String(Date.now() - messages) : 'none'
  const args = [...words, String(port), device, String(qos), String(messages), String(WINDOW), tsFrom]
  const child = spawn(command, args, { env: programs.env, stdio: ['ignore', 'pipe', 'pipe'] })
  const acked = new Set<number>()
  const failed = new Map<number, string>()
  let again = 0
  let output = ''
  const lines = createInterface(child.stdout)
  lines.on('line', line => {
    const [, outcome, number, why = ''] = /^(acked|failed) (\d+) ?(.*)$/.exec(line) ?? []
    const n = Number(number)
    if (outcome === undefined) say(`${line}\n`)
    else if (acked.has(n) || failed.has(n)) again++
    else if (outcome === 'acked') acked.add(n)
    else failed.set(n, why)
  })
  child.stderr.on('data', say)
  const ended = Promise.all([once(lines, 'close'), once(child, 'exit')])
  return {
    acked,
    hasEnded: () => child.exitCode !== null || child.signalCode !== null,
    told: ended.then(([, [exitCode]]) => ({ acked, failed, again, exitCode, output })),
    output: () => output,
    kill: () => void child.kill('SIGKILL'),
  }

  function say(text: unknown): void {
    output = `${output}${text}`.slice(-OUTPUT_CHARACTERS_MAX)
  }
}
