/** The result of a statement on its way into an answer: as it is computed, or whole; and no longer than its client reads. */
import type { Answer, Summary } from './answer.ts'
import type { EngineConnection } from './engine.ts'
import { EngineError } from './engine-error.ts'

/** Waits no longer than that for a client to read on: its statement holds a place in the lane, and memory. */
export function patient(answer: Answer, unreadMsMax: number | null): Pick<Answer, 'write' | 'end'> {
  const write = (bytes: Uint8Array) => {
    const taken = answer.write(bytes)
    return taken === null || unreadMsMax === null ? taken : readWithin(taken, unreadMsMax)
  }
  return { write, end: answer.end }
}

async function readWithin(taken: Promise<void>, msMax: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    const seconds = msMax / 1_000
    const fail = () => reject(new EngineError(159, `Timeout exceeded: nothing of the result was read for ${seconds} s`))
    timer = setTimeout(fail, msMax)
  })
  await Promise.race([taken, late]).finally(() => clearTimeout(timer))
}

/** What was read for it, as far as the engine tells. */
export type Read = Pick<Summary, 'readRows' | 'readBytes'>

export async function whole(
  connection: EngineConnection,
  sql: string,
  format: string,
  answer: Pick<Answer, 'write'>,
): Promise<Read> {
  const { bytes, rows, bytesRead } = await connection.run(sql, format)
  if (bytes.length > 0) await answer.write(bytes)
  return { readRows: rows, readBytes: bytesRead }
}

export async function stream(
  connection: EngineConnection,
  sql: string,
  format: string,
  answer: Pick<Answer, 'write'>,
  gone: AbortSignal,
): Promise<Read> {
  for await (const bytes of connection.stream(sql, format)) {
    if (gone.aborted) break
    await answer.write(bytes)
  }
  return { readRows: 0, readBytes: 0 }
}
