#!/usr/bin/env node
/** The command line: `surgetank` runs everything; the other commands look at, measure or load what runs. */
import { setTimeout as pause } from 'node:timers/promises'
import { Command } from 'commander'
import { pino } from 'pino'
import { openDatabase } from './database/clickhouse-database.ts'
import { ACCESS_DEFAULTS } from './database/database.ts'
import { SurgetankError } from './errors.ts'
import { findRunning } from './manager/data-dir.ts'
import { describeFindings, examine } from './manager/doctor.ts'
import { describeEntries, describeEntry, entryToJson } from './manager/quarantine.ts'
import { describeStart } from './manager/start-block.ts'
import { type Surgetank, startSurgetank } from './manager/surgetank.ts'
import { describeVerdict, verify } from './manager/verify.ts'
import { openLmdbView } from './pump/lmdb-view.ts'
import { readSettings, type Settings } from './settings.ts'
import { simulateCommand } from './simulate/simulate.ts'
import { VERSION } from './version.ts'

const EXIT_STOP = 1
const EXIT_LIMIT_MS = 9_500

const program = new Command('surgetank')
  .description('Telemetry over MQTT, durable before its PUBACK, exactly once into ClickHouse.')
  .version(VERSION)
  .addHelpText(
    'after',
    '\nWithout a command it runs every part on this machine. Settings are environment variables: docs/SETTINGS.md.',
  )
  .allowExcessArguments(true)
  .action(() =>
    program.args.length === 0 ? run() : fail(`'${program.args[0]}' is no command; \`surgetank --help\` lists them.`),
  )

program
  .command('verify')
  .description(
    'Check that the books balance: accepted = in ClickHouse + dead letters + still in the log. Exits 1 when not.',
  )
  .option('--json', 'print the verdict as JSON')
  .action(async (options: { json?: true }) => {
    const settings = readSettings(process.env)
    const url = sqlUrl(settings)
    await withView(settings, async view => {
      const database = openDatabase({ url, user: 'default', password: '', ...ACCESS_DEFAULTS })
      const verdict = await verify(view, database).finally(() => database.close())
      print(options.json ? JSON.stringify(verdict) : describeVerdict(verdict))
      if (!verdict.balanced) process.exitCode = 1
    })
  })

const quarantine = program
  .command('quarantine')
  .description('Look at messages and readings that were refused; their bytes are kept as they came.')

quarantine
  .command('ls')
  .description('List them, newest first.')
  .option('--limit <n>', 'at most so many', readCount, 100)
  .option('--json', 'one JSON document per line')
  .action(async (options: { limit: number; json?: true }) => {
    await withView(readSettings(process.env), async view => {
      const entries = await view.quarantine(options.limit)
      if (options.json && entries.length === 0) return
      print(
        options.json ? entries.map(entry => JSON.stringify(entryToJson(entry))).join('\n') : describeEntries(entries),
      )
    })
  })

quarantine
  .command('show')
  .description('Show one whole, with its bytes.')
  .argument('<id>', 'as `ls` lists it, such as m12')
  .option('--json', 'as a JSON document')
  .action(async (id: string, options: { json?: true }) => {
    await withView(readSettings(process.env), async view => {
      const entry = await view.quarantineEntry(id)
      if (entry === null) fail(`No entry ${id}. \`surgetank quarantine ls\` lists them.`)
      print(options.json ? JSON.stringify(entryToJson(entry)) : describeEntry(entry))
    })
  })

program
  .command('doctor')
  .description('Would it start here, and how fast is the disk? Exits 1 when something stops it.')
  .option('--json', 'print the findings as JSON')
  .action(async (options: { json?: true }) => {
    const findings = await examine(readSettings(process.env))
    print(options.json ? JSON.stringify(findings) : describeFindings(findings))
    if (findings.some(({ verdict }) => verdict === 'stop')) process.exitCode = 1
  })

program.addCommand(simulateCommand())

try {
  await program.parseAsync()
} catch (error) {
  if (!(error instanceof SurgetankError)) throw error
  fail(`${error.message} [${error.code}]`)
}

async function run(): Promise<void> {
  const settings = readSettings(process.env)
  const log = pino({ level: settings.SURGETANK_LOG_LEVEL, base: { part: 'surgetank' } }, pino.destination(2))
  let surgetank: Surgetank | null = null
  surgetank = await startSurgetank(settings, log, error => end(error, 'the log cannot be used any more'))
  print(describeStart(surgetank.ports, settings.SURGETANK_DATA_DIR))
  let stopping = false
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => void stop(signal))
  process.on('unhandledRejection', error => end(error, 'an error that nobody handled'))

  function end(error: unknown, sentence: string): never {
    log.fatal({ err: error }, sentence)
    surgetank?.abort()
    process.exit(EXIT_STOP)
  }

  async function stop(signal: string): Promise<void> {
    if (stopping) {
      surgetank?.abort()
      process.exit(EXIT_STOP)
    }
    stopping = true
    log.info({ signal }, 'draining; a second signal ends it at once')
    const drained = await Promise.race([surgetank?.stop().then(() => true), pause(EXIT_LIMIT_MS, false)])
    if (!drained) {
      log.error('the drain took too long; what was acknowledged is durable')
      surgetank?.abort()
    }
    process.exit(0)
  }
}

async function withView(
  settings: Settings,
  use: (view: Awaited<ReturnType<typeof openLmdbView>>) => Promise<void>,
): Promise<void> {
  const view = await openLmdbView({ dir: `${settings.SURGETANK_DATA_DIR}/log` })
  await use(view).finally(() => view.close())
}

/** Where the instance on this data directory listens: whatever else answers there has other books. */
function sqlUrl({ SURGETANK_DATA_DIR: dir }: Settings): string {
  const running = findRunning(dir)
  if (running === null) fail(`surgetank does not run on ${dir}; start it first, or set SURGETANK_DATA_DIR.`)
  if (running.ports === null) fail(`Process ${running.pid} is still starting on ${dir}; ask again in a moment.`)
  return `http://127.0.0.1:${running.ports.sql}`
}

function readCount(text: string): number {
  const value = Number(text)
  if (!Number.isInteger(value) || value < 1 || value > 100_000) fail(`'${text}' is no count from 1 to 100000.`)
  return value
}

function print(text: string): void {
  process.stdout.write(`${text}\n`)
}

function fail(sentence: string): never {
  process.stderr.write(`${sentence}\n`)
  process.exit(EXIT_STOP)
}
