@0xd8f1c2b7a4e35961;
# Normalized market data of ssmd. Prices and sizes are exact: value = mantissa * 10^exponent.
# A segment is a sequence of standard (unpacked) Cap'n Proto messages, each with the root type Record.
# All times are UTC nanoseconds since 1970-01-01; 0 in tsEventNs means that the venue did not say.

const schemaVersion :UInt16 = 1;

const undefinedPrice :Int64 = 0x7fffffffffffffff;
# Stands for "no value" in any Int64 price or size field.

struct Record {
  feed @0 :Text;
  ticker @1 :Text;            # "*" where a gap concerns a whole channel without a ticker filter
  tsEventNs @2 :UInt64;       # the venue's time
  tsRecvNs @3 :UInt64;        # ours, when the frame was read off the socket
  session @4 :UInt64;         # one per connection made
  n @5 :UInt64;               # the tape entry this record came from, contiguous per session
  index @6 :UInt32;           # 0, 1, ... among the records of one entry
  sid @7 :UInt32;             # the venue's subscription id, 0 = none
  seq @8 :UInt64;             # the venue's sequence number within sid, 0 = none
  priceExponent @9 :Int8;
  sizeExponent @10 :Int8;
  union {
    trade @11 :Trade;
    bookDelta @12 :BookDelta;
    bookSnapshot @13 :BookSnapshot;
    quote @14 :Quote;
    marketStatus @15 :MarketStatus;
    gap @16 :Gap;
  }
}

enum Side { unknown @0; bid @1; ask @2; }

struct Trade {
  tradeId @0 :Text;
  price @1 :Int64;
  size @2 :Int64;
  aggressor @3 :Side;         # bid = the taker bought, ask = the taker sold
  isBlock @4 :Bool;
}

enum SizeMeaning { change @0; total @1; }

struct BookDelta {
  price @0 :Int64;
  size @1 :Int64;
  side @2 :Side;
  meaning @3 :SizeMeaning;    # change: add size to the level; total: the level's new size. A level of size 0 is gone.
}

struct Level { price @0 :Int64; size @1 :Int64; }

struct BookSnapshot {
  bids @0 :List(Level);       # best (highest) first
  asks @1 :List(Level);       # best (lowest) first
  isDerived @2 :Bool;         # made by ssmd from earlier records, not sent by the venue
}

struct Quote {
  bidPrice @0 :Int64;
  bidSize @1 :Int64;
  askPrice @2 :Int64;
  askSize @3 :Int64;
  lastPrice @4 :Int64;
  lastSize @5 :Int64;
  volume @6 :Int64;
  openInterest @7 :Int64;
}

struct MarketStatus {
  change @0 :Text;            # the venue's word for what happened ("created", "determined", ...)
  status @1 :Text;            # the market's status after it in ssmd's words, "" = not told
  openNs @2 :UInt64;
  closeNs @3 :UInt64;
  result @4 :Text;
  settlementPrice @5 :Int64;
  detail @6 :Text;            # the venue's message body, verbatim JSON
}

struct Gap {
  gapId @0 :Text;             # equal on the record that opens a gap and the one that closes it
  state @1 :Text;             # opened | closed
  cause @2 :Text;             # disconnected, sequence-jump, ... (docs/reference/gaps.md)
  startNs @3 :UInt64;         # receive time of the last entry before the hole that is proven good
  endNs @4 :UInt64;           # receive time of the entry that ends the hole; 0 while it is open
  channel @5 :Text;           # the venue channel concerned, "" = all of the session's
  seqExpected @6 :UInt64;     # 0 = the channel has no sequence
  seqFound @7 :UInt64;
  evidence @8 :Text;          # what shows the hole, for people
}
