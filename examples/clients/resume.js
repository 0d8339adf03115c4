// A stock graphql-ws client whose streams go on where they were cut: it sends its payload anew at each connection, so a
// getter for `after` is all that it takes. `last` says where to begin, and is over once there is a cursor.
export function resuming(client) {
  return {
    ...client,
    subscribe(payload, sink) {
      if (!/\$after\b/.test(payload.query)) return client.subscribe(payload, sink);
      const { after, last, ...others } = payload.variables ?? {};
      let cursor = after;
      const variables = {
        ...others,
        get after() {
          return cursor;
        },
        get last() {
          return cursor ? undefined : last;
        },
      };
      return client.subscribe(
        { ...payload, variables },
        {
          next(result) {
            cursor = Object.values(result.data ?? {})[0]?.endCursor ?? cursor;
            sink.next(result);
          },
          error: (error) => sink.error(error),
          complete: () => sink.complete(),
        },
      );
    },
  };
}
