/** What the process that starts Kafka and Redis tells the bench: where they are, or what is missing here and how to get it. */
export type ServersMessage =
  | {
      readonly kind: 'started'
      readonly kafka: { readonly brokers: string; readonly pid: number }
      readonly redis: { readonly url: string; readonly pid: number }
    }
  | { readonly kind: 'missing'; readonly what: string }
