//! Transport-wide congestion control feedback to a publisher (draft-holmer-rmcat-transport-wide-cc-extensions-01).

use std::time::Duration;

use rtc::rtcp::transport_feedbacks::transport_layer_cc::{
    PacketStatusChunk, RecvDelta, RunLengthChunk, StatusChunkTypeTcc, StatusVectorChunk, SymbolSizeTypeTcc,
    SymbolTypeTcc, TransportLayerCc,
};

use crate::media::forward::clock::{Time, wrap16};

/// Wait between the first packet of a report and the report; what libwebrtc's estimator is tuned to.
pub(crate) const FEEDBACK_INTERVAL: Duration = Duration::from_millis(100);

/// Arrivals remembered; a power of two. At 100 ms a report: 10,000 packets a second of one publisher.
const WINDOW: u64 = 1024;
/// A step of numbers longer than this starts anew.
const MAX_SKIP: u64 = WINDOW / 2;
/// Unit of the receive deltas, microseconds (section 3.1.5).
const DELTA_UNIT: u64 = 250;
/// Unit of the reference time, microseconds (section 3.1).
const REFERENCE_UNIT: u64 = 64_000;
/// Symbols of a two-bit status vector (section 3.1.4).
const VECTOR_LEN: usize = 7;
/// Most packets told of in one report, so that it fits one datagram.
const MAX_STATUSES: u64 = 400;
/// Longest run in a run-length chunk (13 bits, section 3.1.3).
const MAX_RUN: usize = 8191;

/// Records arrivals by transport-wide sequence number.
#[derive(Debug)]
pub(crate) struct ArrivalRecorder {
    /// Arrival by number modulo the window; `None`: not come.
    arrivals: Box<[Option<Time>]>,
    highest: Option<u64>,
    /// First number not told of.
    next: u64,
    reports: u8,
}

impl ArrivalRecorder {
    /// Allocates its window.
    pub(crate) fn new() -> Self {
        let arrivals = (0..WINDOW).map(|_| None).collect();
        Self { arrivals, highest: None, next: 0, reports: 0 }
    }

    /// Notes an arrival.
    pub(crate) fn record(&mut self, now: Time, sequence: u16) {
        let extended = match self.highest {
            None => return self.begin(now, 0x1_0000 + u64::from(sequence)),
            Some(highest) => {
                let delta = sequence.wrapping_sub(wrap16(highest)).cast_signed();
                let Some(extended) = highest.checked_add_signed(delta.into()) else { return };
                if extended > highest + MAX_SKIP {
                    return self.begin(now, extended);
                }
                if extended + WINDOW <= highest {
                    return;
                }
                for gap in highest + 1..extended {
                    self.set(gap, None);
                }
                self.highest = Some(highest.max(extended));
                extended
            }
        };
        let repeated = self.highest != Some(extended) && self.at(extended).is_some();
        if !repeated {
            self.set(extended, Some(now));
            // A late packet was told as lost: tell again from there.
            self.next = self.next.min(extended);
        }
    }

    /// The next report, `None` when all is told.
    pub(crate) fn report(&mut self, sender_ssrc: u32, media_ssrc: u32) -> Option<TransportLayerCc> {
        let highest = self.highest?;
        let oldest = (highest + 1).saturating_sub(WINDOW);
        let first = self.next.max(oldest);
        // The base is the first number expected, the reference the first arrival: losses before it are told too.
        let arrived = (first..=highest).find_map(|sequence| self.at(sequence))?;
        let reference = arrived.0 / REFERENCE_UNIT;
        let mut previous = reference * (REFERENCE_UNIT / DELTA_UNIT);
        let mut symbols = Vec::new();
        let mut recv_deltas = Vec::new();
        for sequence in first..=highest.min(first + MAX_STATUSES - 1) {
            let Some(arrival) = self.at(sequence) else {
                symbols.push(SymbolTypeTcc::PacketNotReceived);
                continue;
            };
            let ticks = arrival.0 / DELTA_UNIT;
            let delta = ticks.cast_signed() - previous.cast_signed();
            let symbol = match delta {
                0..=0xff => SymbolTypeTcc::PacketReceivedSmallDelta,
                -0x8000..=0x7fff => SymbolTypeTcc::PacketReceivedLargeDelta,
                _ => break,
            };
            previous = ticks;
            symbols.push(symbol);
            recv_deltas.push(RecvDelta { type_tcc_packet: symbol, delta: delta * DELTA_UNIT.cast_signed() });
        }
        let count = symbols.len();
        self.next = first + count as u64;
        let fb_pkt_count = self.reports;
        self.reports = self.reports.wrapping_add(1);
        Some(TransportLayerCc {
            sender_ssrc,
            media_ssrc,
            base_sequence_number: wrap16(first),
            packet_status_count: u16::try_from(count).ok()?,
            reference_time: u32::try_from(reference & 0x00ff_ffff).ok()?,
            fb_pkt_count,
            packet_chunks: chunks(&symbols),
            recv_deltas,
        })
    }

    fn begin(&mut self, now: Time, extended: u64) {
        self.arrivals.fill(None);
        self.highest = Some(extended);
        self.next = extended;
        self.set(extended, Some(now));
    }

    fn at(&self, extended: u64) -> Option<Time> {
        self.arrivals.get(slot(extended)).copied().flatten()
    }

    fn set(&mut self, extended: u64, arrival: Option<Time>) {
        if let Some(entry) = self.arrivals.get_mut(slot(extended)) {
            *entry = arrival;
        }
    }
}

fn slot(extended: u64) -> usize {
    usize::try_from(extended % WINDOW).unwrap_or(0)
}

/// Runs where they are longer than a vector, vectors elsewhere.
fn chunks(mut symbols: &[SymbolTypeTcc]) -> Vec<PacketStatusChunk> {
    let mut chunks = Vec::new();
    while let Some(first) = symbols.first().copied() {
        let run = symbols.iter().take(MAX_RUN).take_while(|symbol| **symbol == first).count();
        let used = if run >= VECTOR_LEN || run == symbols.len() {
            chunks.push(PacketStatusChunk::RunLengthChunk(RunLengthChunk {
                type_tcc: StatusChunkTypeTcc::RunLengthChunk,
                packet_status_symbol: first,
                run_length: u16::try_from(run).unwrap_or(0),
            }));
            run
        } else {
            let used = symbols.len().min(VECTOR_LEN);
            let mut symbol_list = symbols.get(..used).unwrap_or_default().to_vec();
            symbol_list.resize(VECTOR_LEN, SymbolTypeTcc::PacketNotReceived);
            chunks.push(PacketStatusChunk::StatusVectorChunk(StatusVectorChunk {
                type_tcc: StatusChunkTypeTcc::StatusVectorChunk,
                symbol_size: SymbolSizeTypeTcc::TwoBit,
                symbol_list,
            }));
            used
        };
        symbols = symbols.get(used..).unwrap_or_default();
    }
    chunks
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use rtc::shared::marshal::{Marshal, Unmarshal};

    use super::*;

    /// Numbers and arrival times a sender reads out of a report.
    fn read(report: &TransportLayerCc) -> Vec<(u16, Option<i64>)> {
        let bytes: Bytes = report.marshal().unwrap().freeze();
        assert_eq!(bytes.len() % 4, 0);
        let report = TransportLayerCc::unmarshal(&mut bytes.clone()).unwrap();
        let symbols = report.packet_chunks.iter().flat_map(|chunk| match chunk {
            PacketStatusChunk::RunLengthChunk(run) => vec![run.packet_status_symbol; run.run_length.into()],
            PacketStatusChunk::StatusVectorChunk(vector) => vector.symbol_list.clone(),
        });
        let mut time = i64::from(report.reference_time) * 64_000;
        let mut deltas = report.recv_deltas.iter();
        let mut sequence = report.base_sequence_number;
        let mut told = vec![];
        for symbol in symbols.take(report.packet_status_count.into()) {
            let arrival = (symbol != SymbolTypeTcc::PacketNotReceived).then(|| {
                time += deltas.next().unwrap().delta;
                time
            });
            told.push((sequence, arrival));
            sequence = sequence.wrapping_add(1);
        }
        told
    }

    #[test]
    fn losses_reordering_and_wrap_are_told() {
        let mut recorder = ArrivalRecorder::new();
        for (sequence, micros) in [(65534, 1_000_000), (65535, 1_000_250), (2, 1_100_000), (1, 1_101_000)] {
            recorder.record(Time(micros), sequence);
        }
        let told = read(&recorder.report(1, 2).unwrap());
        let expected =
            [(65534, Some(1_000_000)), (65535, Some(1_000_250)), (0, None), (1, Some(1_101_000)), (2, Some(1_100_000))];
        assert_eq!(told, expected);
        assert!(recorder.report(1, 2).is_none());
        recorder.record(Time(1_200_000), 0);
        assert_eq!(read(&recorder.report(1, 2).unwrap())[0], (0, Some(1_200_000)), "late: told again");
    }

    #[test]
    fn a_long_report_is_split() {
        let mut recorder = ArrivalRecorder::new();
        for sequence in 0..900_u16 {
            recorder.record(Time(1_000_000 + u64::from(sequence) * 500), sequence);
        }
        let mut told = vec![];
        while let Some(report) = recorder.report(1, 2) {
            assert!(report.marshal().unwrap().len() < 1200);
            told.extend(read(&report));
        }
        let expected: Vec<_> = (0..900_u16).map(|s| (s, Some(1_000_000 + i64::from(s) * 500))).collect();
        assert_eq!(told, expected);
    }

    #[test]
    fn a_pause_too_long_for_a_delta_starts_another_report() {
        let mut recorder = ArrivalRecorder::new();
        recorder.record(Time(1_000_000), 1);
        recorder.record(Time(60_000_000), 2);
        assert_eq!(read(&recorder.report(1, 2).unwrap()), [(1, Some(1_000_000))]);
        assert_eq!(read(&recorder.report(1, 2).unwrap()), [(2, Some(60_000_000))]);
        assert!(recorder.report(1, 2).is_none());
    }

    #[test]
    fn a_jump_starts_anew() {
        let mut recorder = ArrivalRecorder::new();
        recorder.record(Time(1_000_000), 1);
        recorder.record(Time(1_000_000), 20_000);
        recorder.record(Time(1_000_000), 1);
        assert_eq!(read(&recorder.report(1, 2).unwrap()), [(20_000, Some(1_000_000))]);
    }
}
