/** What units tell one another about clients. A channel of Redis is open to whoever may publish there: nothing else is believed. */

/** Another unit, `from`, serves the client from now on, and wants to hear of it under `id` when the receiver has let it go. */
export interface TakenTold {
  readonly take: string
  readonly from: string
  readonly id: number
}

/** The answer. `settled`: nothing that the client sent is on its way into the log any more. */
export interface DoneTold {
  readonly done: number
  readonly settled: boolean
}

export type Told = TakenTold | DoneTold

/** Null for what is neither. */
export function parseTold(text: string): Told | null {
  let told: unknown
  try {
    told = JSON.parse(text)
  } catch {
    return null
  }
  if (typeof told !== 'object' || told === null) return null
  const { take, from, id, done, settled } = told as Record<string, unknown>
  if (typeof done === 'number' && typeof settled === 'boolean') return { done, settled }
  if (typeof take === 'string' && typeof from === 'string' && typeof id === 'number') return { take, from, id }
  return null
}
