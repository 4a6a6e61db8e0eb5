/** A unit as a process, to be killed: appends for ever to a log in Kafka, and tells its parent what is acknowledged. */
import { once } from 'node:events'
import { pino } from 'pino'
import { type KafkaOptions, openKafkaInlet } from '../../pump/kafka-pump.ts'
import { batchOf, refusedOf } from '../contracts/pump-samples.ts'

export type AppendOrder = Omit<KafkaOptions, 'log'>
/** Messages that were acknowledged so far: of these the stored and the refused ones. */
export interface Acknowledged {
  readonly received: number
  readonly stored: number
  readonly refused: number
}

const [order] = (await once(process, 'message')) as [AppendOrder]
const inlet = await openKafkaInlet({ ...order, log: pino({ level: 'silent' }) })
let acknowledged: Acknowledged = { received: 0, stored: 0, refused: 0 }
for (let number = 0; ; number++) {
  const stored = number % 4
  const refused = number % 3 === 0 ? [refusedOf(number), refusedOf(number + 1)] : []
  const received = stored + refused.length + 3
  const counts = { received, repeated: 2, quarantined: refused.length, letGo: { presence: 1 } }
  await inlet.append(batchOf(number, stored, { refused, counts }))
  acknowledged = {
    received: acknowledged.received + received,
    stored: acknowledged.stored + stored,
    refused: acknowledged.refused + refused.length,
  }
  process.send?.(acknowledged)
}
