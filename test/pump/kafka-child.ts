/** A writer as a process, to be frozen: it tells its parent what it plans and inserts, and waits for the answer to each. */
import { once } from 'node:events'
import { pino } from 'pino'
import { type KafkaOptions, openKafkaOutlet } from '../../pump/kafka-pump.ts'
import { type Insert, miniWriter } from './kafka-sink.ts'

export type ChildOrder = Omit<KafkaOptions, 'log'> & { readonly sessionMs: number }
export type FromChild =
  | { readonly kind: 'planned'; readonly partition: number }
  | { readonly kind: 'insert'; readonly insert: Insert }
  | { readonly kind: 'lost'; readonly code: string }

const [order] = (await once(process, 'message')) as [ChildOrder]
const outlet = await openKafkaOutlet({ ...order, log: pino({ level: 'silent' }) })
const work = miniWriter({
  insert: insert => ask({ kind: 'insert', insert }),
  chunksMax: () => 5,
  planned: ({ partition }) => ask({ kind: 'planned', partition }),
})
outlet.consume(async claim => {
  try {
    await work(claim)
  } catch (error) {
    process.send?.({ kind: 'lost', code: (error as { code?: string }).code ?? String(error) } satisfies FromChild)
    throw error
  }
})

let asked = Promise.resolve()

/** One question at a time: the parent answers each with one message. */
function ask(message: FromChild): Promise<void> {
  asked = asked.then(async () => {
    const answered = once(process, 'message')
    process.send?.(message)
    await answered
  })
  return asked
}
