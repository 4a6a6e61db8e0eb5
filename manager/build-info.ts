/** Which build runs: said once at the start, and by `/metrics` for as long as it runs. */
import type { Logger } from 'pino'
import { Gauge } from 'prom-client'
import { readMigrations } from '../database/migrate.ts'
import { registry } from '../metrics.ts'
import { BUILD } from '../version.ts'

/** The newest version of the schema that this build knows. */
export const SCHEMA_VERSION = readMigrations().at(-1)?.version ?? 0

/** Writes the first line of a process's log, once its settings are known to fit. Called once in a process. */
export function tellBuild(log: Logger): void {
  const { version, commit } = BUILD
  log.info({ version, commit, schema: SCHEMA_VERSION, node: process.versions.node }, 'surgetank starts')
  const gauge = new Gauge({
    name: 'telemetry_build_info',
    help: 'Always 1: which build runs, and the newest version of the schema that it knows.',
    labelNames: ['version', 'commit', 'schema'],
    registers: [registry],
  })
  gauge.set({ version, commit, schema: String(SCHEMA_VERSION) }, 1)
}
