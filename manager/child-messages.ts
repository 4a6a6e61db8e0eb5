/** What a child process and its parent tell each other. Secrets travel here, never in arguments. */

/** To the writer, once, at its start. */
export interface WriterConfig {
  readonly logDir: string
  readonly databaseUrl: string
  readonly databasePassword: string
  readonly batchRows: number
  readonly batchMs: number
  readonly logLevel: string
}

/** From the writer: it listens for its configuration; it runs; then, once a second, its metrics. */
export type ChildMessage =
  | { readonly kind: 'hello' }
  | { readonly kind: 'ready' }
  | { readonly kind: 'metrics'; readonly metrics: unknown[] }
