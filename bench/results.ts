/** The results of a run as a table for a person: the same text on the terminal and in RESULTS.md. Pure. */
import { type Cell, cellName } from './cells.ts'
import type { DrainSample } from './drain.ts'
import type { Sample } from './measure.ts'
import { ratioOf, type Spread, spreadOf } from './statistics.ts'
import { PARTS, type PartName, type VariantName } from './variants.ts'

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
  /** Processes that wanted a CPU as the run began: what other work there was. */
  readonly loadBefore: number
}

const NAMES: Record<VariantName, string> = {
  bare: 'bare Aedes',
  surgetank: 'Surgetank',
  machines: 'Surgetank on Kafka, Redis, ClickHouse',
  direct: 'direct baseline',
}

const HEADINGS = [
  'broker',
  'acked/s',
  'of bare',
  'of Surgetank',
  'CPU µs per message (user + sys)',
  'of bare',
  'all processes, µs',
  'PUBACK p50 ms',
  'p99 ms',
]

export function cellTable({ cell, samples }: CellResult): string[] {
  const bare = samples.get('bare') ?? []
  const embedded = samples.get('surgetank') ?? []
  const rows = [...samples].map(([variant, own]) => {
    const failure = failureOf(own)
    if (failure !== null) return row(filled([NAMES[variant], `FAILED: ${failure}`], HEADINGS.length))
    const pick = (value: (sample: Sample) => number | null) => spreadOf(own.map(value))
    const ratio = (to: readonly Sample[], value: (sample: Sample) => number | null) =>
      times(ratioOf(own.map(value), to.map(value)))
    const user = pick(sample => sample.userUs)
    const sys = pick(sample => sample.sysUs)
    const acked = (sample: Sample) => sample.ackedPerSecond
    return row([
      NAMES[variant],
      spread(pick(acked), 0),
      ratio(bare, acked),
      failureOf(embedded) === null ? ratio(embedded, acked) : 'unknown',
      `${spread(pick(brokerUs), 1)} (${middle(user, 1)} + ${middle(sys, 1)})`,
      ratio(bare, brokerUs),
      ...[middle(pick(allUs), 1), middle(pick(p50), 1), spread(pick(p99), 1)],
    ])
  })
  return [`### ${cellName(cell)}`, '', ...table(HEADINGS, rows), '', ...endToEndTable(samples)]
}

/** From the first message sent until all are stored: how fast, and which part takes how much. */
function endToEndTable(samples: CellResult['samples']): string[] {
  const headings = ['until all is stored', 'stored/s', 'all, CPU µs per message', ...PARTS]
  const rows = [...samples].flatMap(([variant, own]) => {
    const ends = own.map(({ endToEnd }) => endToEnd)
    if (failureOf(own) !== null || ends.every(end => end === null)) return []
    const rate = spreadOf(ends.map(end => end?.storedPerSecond ?? null))
    const part = (name: PartName) => spreadOf(ends.map(end => end?.partUs[name] ?? null))
    const all = spreadOf(ends.map(end => sumOf(end?.partUs ?? {})))
    const parts = PARTS.map(name => (part(name) === null ? '' : middle(part(name), 1)))
    return [row([NAMES[variant], spread(rate, 0), spread(all, 1), ...parts])]
  })
  return rows.length === 0 ? [] : [...table(headings, rows), '']
}

function failureOf(samples: readonly Sample[]): string | null {
  return samples.find(({ failure }) => failure !== null)?.failure ?? null
}

/** Null of nothing. */
function sumOf(parts: Readonly<Partial<Record<PartName, number>>>): number | null {
  const values = Object.values(parts)
  return values.length === 0 ? null : values.reduce((sum, us) => sum + us, 0)
}

function allUs({ allUs: us }: Sample): number | null {
  return us
}

function p50({ p50Ms }: Sample): number {
  return p50Ms
}

function p99({ p99Ms }: Sample): number {
  return p99Ms
}

function brokerUs(sample: Sample): number | null {
  return sample.userUs === null || sample.sysUs === null ? null : sample.userUs + sample.sysUs
}

/** Who drained, and what came of it; a sentence when it could not be measured. */
export interface Drained {
  readonly by: string
  readonly sample: DrainSample | string
}

export function drainText(drained: readonly Drained[]): string[] {
  if (drained.length === 0) return []
  const rows = drained.map(({ by, sample }) => {
    if (typeof sample === 'string') return row([by, `FAILED: ${sample}`, '', '', ''])
    const shares = sample.shares.map(share => `${Math.round(share * 100)} %`).join(' and ')
    return row([by, format(sample.rowsPerSecond, 0), format(sample.rows, 0), format(sample.secondsToFirst, 1), shares])
  })
  const headings = [
    'draining a backlog into ClickHouse',
    'rows/s',
    'rows',
    'first rows after, s',
    'share of each writer',
  ]
  return [...table(headings, rows), '']
}

/** RESULTS.md of a complete run. */
export function resultsPage(facts: RunFacts, cells: readonly CellResult[], drained: readonly Drained[]): string {
  const generator = spreadOf(
    cells.flatMap(({ samples }) => [...samples.values()].flat().map(sample => sample.generatorUs)),
  )
  return [
    '# Results of the bench',
    '',
    `${facts.date}, Node ${facts.node}, ${facts.cores} cores (${facts.cpu}), ${facts.rounds} rounds of ${facts.seconds} s each,`,
    `${facts.rate === null ? 'closed-loop' : `open-loop at ${facts.rate} messages/s`}, QoS 1, payload ${facts.payloadBytes} bytes with three readings and a time.`,
    `The load average was ${facts.loadBefore.toFixed(1)} as it began; what else runs on the machine moves the figures, and ratios less.`,
    'Written by `npm run bench`. Median of the rounds, [least–greatest]; ratios are taken round by round.',
    '',
    ...cells.flatMap(cellTable),
    '### Backlog',
    '',
    ...drainText(drained),
    '## How to read it',
    '',
    '- **bare Aedes** acknowledges and stores nothing. **Surgetank** is the whole system on one machine: fsync before every',
    '  PUBACK, the newest state, the writer and ClickHouse beside it on the same cores, these two at a lower priority. The',
    '  **direct baseline** is the same Aedes with one ClickHouse insert (plain MergeTree, no fsync) for each message before',
    '  its PUBACK.',
    '- **Surgetank on Kafka, Redis, ClickHouse** is `surgetank broker`, `writer`, `reader` and `api` as processes of their',
    '  own over one Kafka 4.1 broker (an fsync for each append, a small JVM with the first compiler only), one Redis and',
    '  the same ClickHouse engine behind HTTP. Here all of them share the cores with the generator; they are meant to have',
    '  machines of their own, and then the CPU of each part says how far one of it goes.',
    '- burst is 50 connections with 50 messages in flight each, trickle 500 connections with one. A burst packs about 50',
    '  messages into one read of a socket; trickle pays a read and a write for every message, and is what devices do.',
    '- The first table of a cell is of its window: CPU is that of the broker process, from the kernel; "all processes" is of',
    '  those that work for it, as far as they ran inside the window. The second table goes from the first message sent until',
    '  the last is stored, which holds the second that readings wait for others to share their insert.',
    `- The generator runs on the same cores, at a median of ${middle(generator, 1)} µs per message, so messages per second are those`,
    '  of a machine that also makes its own load. CPU per message is the steadier figure. PUBACK times of a closed loop are',
    '  the window divided by the rate: they compare brokers under saturation, and are not what a lightly loaded one takes.',
    '- After every measurement the stored messages are counted by the counter that each carries. A variant that lost or',
    '  doubled one is printed as FAILED instead of with figures.',
    '',
    '## How to repeat it',
    '',
    '`npm ci && npm run bench`, about eight minutes; `npm run bench -- --help` lists the options. Kafka and Redis are',
    'started from what `npm test` uses for them; without them the other brokers are measured. Nothing else should run on the',
    'machine: figures of one run are comparable with one another, figures of two machines are not.',
    '',
  ].join('\n')
}

function table(headings: readonly string[], rows: readonly string[]): string[] {
  return [row(headings), row(headings.map(() => '---')), ...rows]
}

function filled(cells: readonly string[], length: number): string[] {
  return Array.from({ length }, (_, at) => cells[at] ?? '')
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
