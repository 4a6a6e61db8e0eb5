/**
 * The options of `surgetank simulate`: what each takes, and what cannot go together. Everything else of this folder gets
 * them checked.
 */
import { Command, InvalidArgumentError, Option } from 'commander'
import type { DatabaseAccess } from '../database/database.ts'
import { SCENARIOS, type Scenario } from './scenario.ts'

export interface SimulateOptions {
  readonly devices: number
  /** Messages per second; undefined takes 100, or for a replay as fast as it goes. */
  readonly rate?: number
  readonly seconds: number
  readonly scenario: Scenario
  readonly replay?: readonly string[]
  readonly qos: 0 | 1 | 2
  readonly inflight: number
  /** Undefined takes one from the clock. */
  readonly seed?: number
  readonly verify: boolean
  /** Seconds. */
  readonly verifyTimeout: number
  readonly url: string
  readonly http: string
  readonly sql: string
  /** A ClickHouse server and how to get in; takes the place of `sql`. */
  readonly server?: DatabaseAccess
  readonly json: boolean
}

export const DEFAULT_RATE = 100
/** Thirteen bytes are kept for each message until the end. */
export const MESSAGES_MAX = 50_000_000

/** The command with its options; an option out of range is refused with a sentence. */
export function commandWithOptions(): Command {
  return new Command('simulate')
    .description(
      'publish the telemetry of a fleet, and prove that every acknowledged reading is stored once, unchanged',
    )
    .option(
      '--devices <n>',
      'how many devices; the first 1,000 have a connection each, more share them',
      whole(1, 1_000_000),
      100,
    )
    .option(
      '--rate <messages/s>',
      `messages per second in all (default: ${DEFAULT_RATE}; a replay: as fast as it goes)`,
      amount(0.1, 1_000_000),
    )
    .option('--seconds <s>', 'how long', amount(0.1, 604_800), 10)
    .addOption(
      new Option(
        '--scenario <name>',
        'steady; spike: a tenth, the full rate, a tenth; hot-key: 80 % on one device; toggle: a boolean that changes within a second',
      )
        .choices(SCENARIOS)
        .default('steady'),
    )
    .option(
      '--replay <file.csv...>',
      "publish recorded series instead: columns timestamp,value; the device is the file's name",
    )
    .addOption(
      new Option('--qos <0|1|2>', 'quality of service').choices(['0', '1', '2']).default(1).argParser(parseQos),
    )
    .option('--inflight <n>', 'unacknowledged messages of one connection', whole(1, 65_535), 50)
    .option('--seed <n>', 'the same seed makes up the same values (default: from the clock)', whole(0, 4_294_967_295))
    .option('--verify', 'afterwards compare every reading with ClickHouse and the API; exit 1 on any difference', false)
    .option(
      '--verify-timeout <s>',
      'how long to wait until ClickHouse holds what was acknowledged',
      amount(1, 86_400),
      60,
    )
    .option('--url <url>', 'the MQTT broker', url('mqtt:', 'mqtts:'), 'mqtt://127.0.0.1:1883')
    .option('--http <url>', 'the HTTP API', url('http:', 'https:'), 'http://127.0.0.1:8080')
    .option(
      '--sql <url>',
      "ClickHouse's HTTP protocol; without it the server of CLICKHOUSE_URL is asked, where that is set",
      url('http:', 'https:'),
      'http://127.0.0.1:8123',
    )
    .option('--json', 'one line of JSON on stdout, and nothing else', false)
}

/** What is wrong with options that are each in range, as a sentence; null when they go together. */
export function conflictOf(options: SimulateOptions): string | null {
  const messages = (options.rate ?? DEFAULT_RATE) * options.seconds
  if (options.replay === undefined && messages > MESSAGES_MAX) {
    return `--rate times --seconds is ${messages} messages; a run takes up to ${MESSAGES_MAX}.`
  }
  if (options.replay !== undefined && new Set(options.replay).size < options.replay.length) {
    return '--replay names a file twice.'
  }
  return null
}

function whole(min: number, max: number): (text: string) => number {
  return text => {
    const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN
    if (value >= min && value <= max) return value
    throw new InvalidArgumentError(`It takes a whole number from ${min} to ${max}.`)
  }
}

function amount(min: number, max: number): (text: string) => number {
  return text => {
    const value = /^\d{1,15}(\.\d{1,6})?$/.test(text) ? Number(text) : Number.NaN
    if (value >= min && value <= max) return value
    throw new InvalidArgumentError(`It takes a number from ${min} to ${max}.`)
  }
}

function parseQos(text: string): 0 | 1 | 2 {
  if (text === '0' || text === '1' || text === '2') return Number(text) as 0 | 1 | 2
  throw new InvalidArgumentError('It takes 0, 1 or 2.')
}

/** A URL without the slash at its end. */
function url(...protocols: string[]): (text: string) => string {
  return text => {
    if (URL.canParse(text) && protocols.includes(new URL(text).protocol)) return text.replace(/\/+$/, '')
    throw new InvalidArgumentError(`It takes a URL that begins with ${protocols.join('// or ')}//.`)
  }
}
