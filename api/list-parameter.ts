/**
 * A list in a query, in two ways. The parameter repeated: each value is taken as it is. The parameter once: commas stand
 * between the values. So a list of one value that holds a comma is written as that value twice.
 */
import { Type } from 'typebox'

export interface ListBounds {
  readonly valuesMax: number
  /** Of one value, in code points. */
  readonly charsMax: number
}

const TWO_WAYS =
  'Repeated, once for each value; or once, with commas between values that hold none. A list of one value that holds a comma: that value twice.'

export function listParameter({ valuesMax, charsMax }: ListBounds, description: string) {
  const together = Type.String({ maxLength: valuesMax * (charsMax + 1) })
  const repeated = Type.Array(Type.String({ maxLength: charsMax }), { maxItems: valuesMax })
  return Type.Union([together, repeated], { description: `${description} ${TWO_WAYS}` })
}

/** The values, as often as they were given. */
export function parseList(given: string | readonly string[]): readonly string[] {
  return typeof given === 'string' ? given.split(',') : given
}
