/** Values as ClickHouse holds them (kind, value, value_str) and as the rest of the system does; the inverse of row-binary.ts. */
import type { Kind, Value } from '../model/reading.ts'

/** The columns that `toValue` takes, of a table or view with `kind`, `value` and `value_str`. */
export const VALUE_COLUMNS = 'kind, value, value_str'

/** The value that was sent: an integer beyond 2^53 comes from its digits, exactly [G3]. */
export function toValue(kind: Kind, value: number | null, text: string): Value {
  switch (kind) {
    case 'integer':
      return BigInt(text)
    case 'bool':
      return value === 1
    case 'string':
      return text
    case 'null':
      return null
    case 'number':
      return value
  }
}
