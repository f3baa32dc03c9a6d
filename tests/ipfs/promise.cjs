// js-ipfs's libraries call Promise.withResolvers, which Node has since 22.
Promise.withResolvers ??= function withResolvers() {
  let resolve, reject
  const promise = new this((...pair) => { [resolve, reject] = pair })
  return { promise, resolve, reject }
}
