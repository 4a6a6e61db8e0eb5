/** The results of a run as a table for a person: the same text on the terminal and in RESULTS.md. Pure. */
import { type Cell, cellName } from './cells.ts'
import type { DrainSample } from './drain.ts'
import type { Sample } from './measure.ts'
import { ratioOf, type Spread, spreadOf } from './statistics.ts'
import type { VariantName } from './variants.ts'

export interface CellResult {
  readonly cell: Cell
  /** One sample per round, by variant. */
  readonly samples: ReadonlyMap<VariantName, readonly Sample[]>
}

export interface RunFacts {
  readonly date: string
  readonly node: string
  readonly cores: number
  readonly cpu: string
  readonly rounds: number
  readonly seconds: number
  readonly rate: number | null
  readonly payloadBytes: number
}

const NAMES: Record<VariantName, string> = { bare: 'bare Aedes', surgetank: 'Surgetank', direct: 'direct baseline' }

const HEADINGS = [
  'broker',
  'acked/s',
  'of bare',
  'CPU µs per message (user + sys)',
  'of bare',
  'all processes, µs',
  'PUBACK p50 ms',
  'p99 ms',
]

export function cellTable({ cell, samples }: CellResult): string[] {
  const bare = samples.get('bare') ?? []
  const rows = [...samples].map(([variant, own]) => {
    const failure = own.find(sample => sample.failure !== null)?.failure
    if (failure !== undefined) return row([NAMES[variant], `FAILED: ${failure}`, '', '', '', '', '', ''])
    const pick = (value: (sample: Sample) => number | null) => spreadOf(own.map(value))
    const ratio = (value: (sample: Sample) => number | null) => ratioOf(own.map(value), bare.map(value))
    const user = pick(sample => sample.userUs)
    const sys = pick(sample => sample.sysUs)
    return row([
      NAMES[variant],
      spread(
        pick(sample => sample.ackedPerSecond),
        0,
      ),
      times(ratio(sample => sample.ackedPerSecond)),
      `${spread(pick(brokerUs), 1)} (${middle(user, 1)} + ${middle(sys, 1)})`,
      times(ratio(brokerUs)),
      middle(
        pick(sample => sample.allUs),
        1,
      ),
      middle(
        pick(sample => sample.p50Ms),
        1,
      ),
      spread(
        pick(sample => sample.p99Ms),
        1,
      ),
    ])
  })
  return [`### ${cellName(cell)}`, '', row(HEADINGS), row(HEADINGS.map(() => '---')), ...rows, '']
}

function brokerUs(sample: Sample): number | null {
  return sample.userUs === null || sample.sysUs === null ? null : sample.userUs + sample.sysUs
}

export function drainText(drain: readonly (DrainSample | string)[]): string[] {
  const failure = drain.find(sample => typeof sample === 'string')
  if (failure !== undefined) return [`Draining a backlog: FAILED: ${failure}.`, '']
  const samples = drain.filter(sample => typeof sample !== 'string')
  if (samples.length === 0) return []
  const rate = spreadOf(samples.map(sample => sample.rowsPerSecond))
  const rows = spreadOf(samples.map(sample => sample.rows))
  return [`Draining a backlog of ${middle(rows, 0)} rows into ClickHouse: **${spread(rate, 0)} rows/s**.`, '']
}

/** RESULTS.md of a complete run. */
export function resultsPage(
  facts: RunFacts,
  cells: readonly CellResult[],
  drain: readonly (DrainSample | string)[],
): string {
  const generator = spreadOf(
    cells.flatMap(({ samples }) => [...samples.values()].flat().map(sample => sample.generatorUs)),
  )
  return [
    '# Results of the bench',
    '',
    `${facts.date}, Node ${facts.node}, ${facts.cores} cores (${facts.cpu}), ${facts.rounds} rounds of ${facts.seconds} s each,`,
    `${facts.rate === null ? 'closed-loop' : `open-loop at ${facts.rate} messages/s`}, QoS 1, payload ${facts.payloadBytes} bytes with three readings and a time.`,
    'Written by `npm run bench`. Median of the rounds, [least–greatest]; ratios are taken round by round.',
    '',
    ...cells.flatMap(cellTable),
    ...drainText(drain),
    '## How to read it',
    '',
    '- **bare Aedes** acknowledges and stores nothing. **Surgetank** is the whole system: fsync before every PUBACK, the',
    '  newest state, the writer and ClickHouse beside it on the same cores. The **direct baseline** is the same Aedes with',
    '  one ClickHouse insert (plain MergeTree, no fsync) for each message before its PUBACK.',
    '- burst is 50 connections with 50 messages in flight each, trickle 500 connections with one. A burst packs about 50',
    '  messages into one read of a socket; trickle pays a read and a write for every message, and is what devices do.',
    '- CPU is that of the broker process, from the kernel. "All processes" adds the writer and ClickHouse, as far as they',
    '  ran inside the window: they work at a lower priority, and part of the backlog is written after it.',
    `- The generator runs on the same cores, at a median of ${middle(generator, 1)} µs per message, so messages per second are those`,
    '  of a machine that also makes its own load. CPU per message is the steadier figure. PUBACK times of a closed loop are',
    '  the window divided by the rate: they compare brokers under saturation, and are not what a lightly loaded one takes.',
    '- After every measurement the stored messages are counted by the counter that each carries. A variant that lost or',
    '  doubled one is printed as FAILED instead of with figures.',
    '',
    '## How to repeat it',
    '',
    '`npm ci && npm run bench`, about six minutes; `npm run bench -- --help` lists the options. Nothing else should run on',
    'the machine: figures of one run are comparable with one another, figures of two machines are not.',
    '',
  ].join('\n')
}

function row(cells: readonly string[]): string {
  return `| ${cells.join(' | ')} |`
}

function spread(value: Spread | null, digits: number): string {
  if (value === null) return 'unknown'
  if (value.min === value.max) return format(value.median, digits)
  return `${format(value.median, digits)} [${format(value.min, digits)}–${format(value.max, digits)}]`
}

function middle(value: Spread | null, digits: number): string {
  return value === null ? 'unknown' : format(value.median, digits)
}

function times(value: Spread | null): string {
  return value === null ? 'unknown' : `${value.median < 0.1 ? value.median.toPrecision(2) : value.median.toFixed(2)}×`
}

function format(value: number, digits: number): string {
  return value.toLocaleString('en-US', { minimumFractionDigits: digits, maximumFractionDigits: digits })
}
