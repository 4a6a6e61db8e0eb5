/** What a child process and its parent tell each other. Secrets travel here, never in arguments. */
import type { DatabaseAccess } from '../database/database.ts'
import type { ErrorCode } from '../errors.ts'
import type { LogPlace } from './adapters.ts'

/** To the writer, once, at its start. */
export interface WriterConfig {
  readonly log: LogPlace
  readonly database: DatabaseAccess
  /** True when the writer brings the schema up to date: nobody else does for a server. */
  readonly migrates: boolean
  readonly batchRows: number
  readonly batchMs: number
  readonly logLevel: string
}

/**
 * From the writer: it listens for its configuration; it runs; then, once a second, its metrics. Before it ends because it
 * cannot go on, the error that it ends for.
 */
export type ChildMessage =
  | { readonly kind: 'hello' }
  | { readonly kind: 'ready' }
  | { readonly kind: 'metrics'; readonly metrics: unknown[] }
  | { readonly kind: 'failed'; readonly code: ErrorCode; readonly detail: string }
