#!/usr/bin/env node
/**
 * The command line: `surgetank` runs everything, `surgetank broker` and its like run one part; the other commands look at,
 * measure or load what runs.
 */
import { existsSync } from 'node:fs'
import { Command } from 'commander'
import { openDatabase } from './database/clickhouse-database.ts'
import type { DatabaseAccess } from './database/database.ts'
import { SurgetankError } from './errors.ts'
import { choosePlaces, embeddedAccess, openView } from './manager/adapters.ts'
import { tellBuild } from './manager/build-info.ts'
import { findRunning } from './manager/data-dir.ts'
import { describeFindings, examine } from './manager/doctor.ts'
import { SEEN_FROM } from './manager/doctor-servers.ts'
import { openLog } from './manager/log.ts'
import { describeEntries, describeEntry, entryToJson } from './manager/quarantine.ts'
import { describeRepeated, repeatedToJson } from './manager/repeated.ts'
import { startRole } from './manager/role.ts'
import { ROLES, type RoleName } from './manager/roles.ts'
import { run } from './manager/run.ts'
import { describeRole, describeStart } from './manager/start-block.ts'
import { startSurgetank } from './manager/surgetank.ts'
import { describeVerdict, verify } from './manager/verify.ts'
import { keepFilesPrivate } from './private-files.ts'
import type { PumpView } from './pump/pump.ts'
import { readSettings, type Settings } from './settings.ts'
import { shownJson, shownLines, shownText } from './shown-text.ts'
import { simulateCommand } from './simulate/simulate.ts'
import { VERSION } from './version.ts'

const EXIT_STOP = 1

keepFilesPrivate()

const program = new Command('surgetank')
  .description('Telemetry over MQTT, durable before its PUBACK, exactly once into ClickHouse.')
  .version(VERSION)
  .addHelpText(
    'after',
    '\nWithout a command it runs every part on this machine. Settings are environment variables: docs/SETTINGS.md.',
  )
  .configureOutput({ writeErr: text => process.stderr.write(shownLines(text)) })
  .allowExcessArguments(true)
  .action(() =>
    program.args.length === 0 ? runAll() : fail(`'${program.args[0]}' is no command; \`surgetank --help\` lists them.`),
  )

program
  .command('verify')
  .description(
    'Check that the books balance. In messages: received = accepted + repeated + quarantined + let go. In readings: accepted = in ClickHouse + dead letters + still in the log. Exits 1 when not.',
  )
  .option('--json', 'print the verdict as JSON')
  .action(async (options: { json?: true }) => {
    const settings = readSettings(process.env)
    const access = databaseAccess(settings)
    await withView(settings, async view => {
      const database = openDatabase(access, { readonly: access.socketPath !== null })
      const verdict = await verify(view, database).finally(() => database.close())
      print(options.json ? toJson(verdict) : describeVerdict(verdict))
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
      print(options.json ? entries.map(entry => toJson(entryToJson(entry))).join('\n') : describeEntries(entries))
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
      print(options.json ? toJson(entryToJson(entry)) : describeEntry(entry))
    })
  })

program
  .command('repeated')
  .description('Look at messages that were taken for ones sent again; the newest are listed, and all are counted.')
  .command('ls')
  .description('List them, newest first.')
  .option('--device <id>', 'of this device only')
  .option('--limit <n>', 'at most so many', readCount, 100)
  .option('--json', 'one JSON document per line')
  .action(async (options: { device?: string; limit: number; json?: true }) => {
    await withView(readSettings(process.env), async view => {
      const entries = await view.repeated(options.limit, options.device ?? null)
      if (options.json && entries.length === 0) return
      print(options.json ? entries.map(entry => toJson(repeatedToJson(entry))).join('\n') : describeRepeated(entries))
    })
  })

program
  .command('doctor')
  .description('Would it start here, and how fast is the disk? Exits 1 when something stops it.')
  .option('--json', 'print the findings as JSON')
  .action(async (options: { json?: true }) => {
    const findings = await examine(readSettings(process.env))
    print(options.json ? toJson(findings) : describeFindings(findings))
    if (findings.some(({ verdict }) => verdict === 'stop')) process.exitCode = 1
  })

program.addCommand(
  simulateCommand(() => {
    const { database } = choosePlaces(readSettings(process.env))
    return database.kind === 'server' ? database.access : null
  })
    .copyInheritedSettings(program)
    .allowExcessArguments(false),
)

for (const [name, { does }] of Object.entries(ROLES)) {
  program
    .command(name)
    .description(`One part in a process of its own. ${does}`)
    .action(() => runRole(name as RoleName))
}

// A reader such as `head` leaves when it has enough. A command has nothing more to do then, and what runs goes on running.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error
})

try {
  await program.parseAsync()
} catch (error) {
  if (!(error instanceof SurgetankError)) throw error
  fail(`${error.message} [${error.code}]`)
}

function runAll(): Promise<void> {
  const settings = readSettings(process.env)
  const log = openLog(settings.SURGETANK_LOG_LEVEL, 'surgetank')
  return run({
    log,
    start: async (stopping, failed) => {
      tellBuild(log)
      const { ports, walls, stop, abort } = await startSurgetank({ settings, log, stopping, failed })
      return { banner: describeStart({ ports, walls }, settings, choosePlaces(settings)), stop, abort }
    },
  })
}

function runRole(name: RoleName): Promise<void> {
  const settings = readSettings(process.env)
  const log = openLog(settings.SURGETANK_LOG_LEVEL, name)
  return run({
    log,
    start: async (stopping, failed) => {
      const role = await startRole(name, { settings, log, stopping, failed })
      return { banner: describeRole(name, role, settings), stop: role.stop, abort: async () => {} }
    },
  })
}

async function withView(settings: Settings, use: (view: PumpView) => Promise<void>): Promise<void> {
  const view = await openView(choosePlaces(settings).log, openLog(settings.SURGETANK_LOG_LEVEL, 'command'))
  await use(view).finally(() => view.close())
}

/** Where the readings of this log are. */
function databaseAccess(settings: Settings): DatabaseAccess {
  const { database } = choosePlaces(settings)
  return database.kind === 'server' ? database.access : embeddedAccess(socketFolderOf(settings))
}

/** Only the process that runs on the data directory has its engine. */
function socketFolderOf({ SURGETANK_DATA_DIR: dir }: Settings): string {
  const running = findRunning(dir)
  if (running === null) fail(`surgetank does not run on ${dir}; start it first, or set SURGETANK_DATA_DIR.`)
  if (running.ports === null) fail(`Process ${running.pid} is still starting on ${dir}; ask again in a moment.`)
  if (running.ports.sql === null)
    fail(`Process ${running.pid} uses a ClickHouse server; set CLICKHOUSE_URL as it has it.`)
  const folder = running.socketFolder
  if (folder === null) fail(`Process ${running.pid} is of an earlier version: ask it by its own \`surgetank\`.`)
  if (!existsSync(folder))
    fail(`Process ${running.pid} has its sockets in ${folder}, which is not to be seen from here. ${SEEN_FROM}`)
  return folder
}

function readCount(text: string): number {
  const value = Number(text)
  if (!Number.isInteger(value) || value < 1 || value > 100_000) fail(`'${text}' is no count from 1 to 100000.`)
  return value
}

/** For a script, and still safe on a terminal. */
function toJson(document: unknown): string {
  return shownJson(JSON.stringify(document))
}

function print(text: string): void {
  process.stdout.write(`${shownLines(text)}\n`)
}

function fail(sentence: string): never {
  process.stderr.write(`${shownText(sentence)}\n`)
  process.exit(EXIT_STOP)
}
