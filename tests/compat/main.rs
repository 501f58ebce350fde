//! Tier 1 of LiveKit's client API, row by row: each is driven by the newest unmodified livekit-client in Chromium, with
//! one peer connection and with two, and judged by what the SDK reports. `docs/compat.md` is made from the table below.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test may panic")]

mod agents;
mod call;
mod data;
mod grants;
mod layers;
mod participant;
mod permission;
mod presence;
mod reconnect;
mod server_api;
mod subscription;
mod table;
mod tracks;
mod turn;

/// One row of the tier: `name: story, "what holds";`. Makes the tests `name::single` and `name::dual`, each of which
/// runs `story(Mode)`, and its line in the table.
macro_rules! rows {
    ($($group:literal { $($name:ident: $story:path, $holds:literal;)* })*) => {
        $($(
            mod $name {
                use meridian_tests::sdk::Mode;

                #[tokio::test(flavor = "multi_thread")]
                async fn single() -> anyhow::Result<()> {
                    $story(Mode::Single).await
                }

                #[tokio::test(flavor = "multi_thread")]
                async fn dual() -> anyhow::Result<()> {
                    $story(Mode::Dual).await
                }
            }
        )*)*

        /// Every row, by group.
        const GROUPS: &[table::Group] = &[
            $(table::Group {
                name: $group,
                rows: &[$(table::Row { test: stringify!($name), holds: $holds }),*],
            }),*
        ];
    };
}

rows! {
    "Reconnect" {
        a_dropped_signal_connection_resumes: crate::reconnect::resumes,
            "The WebSocket breaks: `Reconnected` comes, nothing is republished, others see nothing, data goes on.";
        a_full_reconnect_brings_everything_back: crate::reconnect::starts_over,
            "The server asks for a full reconnect: `Reconnecting`, `Reconnected`, tracks are there again.";
        a_silent_signal_connection_is_noticed: crate::reconnect::silence,
            "The WebSocket falls silent: the SDK's pings time out, and it resumes as above.";
        a_client_away_too_long_starts_over: crate::reconnect::away_too_long,
            "Away for longer than `departureTimeout`: it leaves once for the others; then `STATE_MISMATCH`, a full reconnect.";
        tokens_are_refreshed: crate::grants::refreshed,
            "The token expires in mid-call: a full reconnect works, and a name that was changed stays.";
    }
    "Networks" {
        turn_carries_media_where_udp_is_blocked: crate::turn::no_udp,
            "No UDP to the node: media goes through a TURN server over TCP, which clients have from the edge.";
        turn_is_forced_on_who_cannot_be_reached: crate::turn::forced,
            "Only STUN gets through: the SDK's first try fails, at the next one it is told to use TURN alone.";
    }
    "Grants" {
        without_can_publish: crate::grants::not_publishing, "`canPublish: false`: publishing fails, receiving does not.";
        with_can_publish_sources: crate::grants::some_sources, "`canPublishSources`: these sources and no others.";
        without_can_subscribe: crate::grants::not_subscribing, "`canSubscribe: false`: no track comes, asked for or not.";
        without_can_publish_data: crate::grants::not_sending_data,
            "`canPublishData: false`: nobody hears what is sent, on either channel, until it is granted.";
        with_can_update_own_metadata: crate::grants::own_metadata, "`canUpdateOwnMetadata`: from the start.";
        with_hidden: crate::grants::hidden, "`hidden`: sees everything, and nobody hears of it.";
        without_room_join: crate::grants::no_room, "No `roomJoin`: refused, and told why. No `room`: refused.";
        with_room_admin: crate::grants::room_admin, "`roomAdmin`: the server API, for that room alone.";
        with_a_room_configuration: crate::grants::room_configuration, "`roomConfig`: the room it creates is like that.";
        with_single_use: crate::grants::single_use,
            "`jti` and `singleUse` (not LiveKit's): one join; a reconnect later is no other one.";
        agents_are_seen_as_such: crate::grants::kinds, "`kind: agent`: `participant.isAgent`.";
    }
    "Permissions" {
        revoking_can_publish_unpublishes: crate::permission::publishing_revoked,
            "`canPublish` is taken away in mid-call: tracks end for everyone, publishing fails, and works when given back.";
        can_publish_sources_are_enforced: crate::permission::publishing_some_sources,
            "`canPublishSources` narrowed in mid-call: what is not among them ends and cannot be published.";
        revoking_can_subscribe_unsubscribes: crate::permission::subscribing_revoked,
            "`canSubscribe` taken away: tracks go; given back: they come again.";
        hidden_participants_are_not_seen: crate::permission::hiding,
            "`hidden` set in mid-call: gone for the others; cleared: there again, with its tracks.";
        the_server_mutes_a_track: crate::permission::muted_by_the_server,
            "`MutePublishedTrack`: muted for everyone, its owner included, who may unmute; the server may not.";
        publishers_choose_who_subscribes: crate::permission::subscription_permissions,
            "`setTrackSubscriptionPermissions`: tracks go from those not named and come to those who are, all or one by one.";
    }
    "Participants and rooms" {
        participants_change_their_profile: crate::participant::own_profile,
            "Name, metadata, attributes: with `canUpdateOwnMetadata` only, heard by everyone; an attribute is deleted.";
        profiles_have_limits: crate::participant::profile_limits,
            "Name, metadata, attributes that are too large: refused, and why; what is just large enough arrives.";
        participants_are_counted: crate::participant::counted, "`room.numParticipants`, as others come and go.";
        the_server_changes_profiles_and_room_metadata: crate::participant::changed_by_the_server,
            "`UpdateParticipant`, `UpdateRoomMetadata`: heard by everyone.";
        the_server_sends_data: crate::participant::data_of_the_server,
            "`SendData`: to everyone, or to those named, in order.";
        a_removed_participant_stays_away: crate::participant::removed,
            "`RemoveParticipant`: `Disconnected` with its reason; the tokens it held are void, new ones are good.";
        a_deployment_may_keep_tokens_good: crate::participant::removed_with_its_token,
            "`RemoveParticipant` with `KEEP_TOKENS_OF_REMOVED`: its token lets it in again, as on LiveKit's server.";
        a_room_that_nobody_is_in_ends: crate::participant::room_empty,
            "`emptyTimeout` before the first join, `departureTimeout` after the last leave: the next join makes another room.";
        a_deleted_room_ends_for_everyone: crate::participant::room_deleted,
            "`DeleteRoom`: `Disconnected` with its reason.";
        the_same_identity_replaces_the_first: crate::participant::same_identity,
            "A second client of an identity: the first is disconnected with its reason, the second is seen.";
        a_full_room_refuses: crate::participant::room_full,
            "`CreateRoom` with `maxParticipants`: one too many is refused, and says why.";
        a_recording_shows: crate::participant::recording,
            "A hidden recorder comes and goes: `RecordingStatusChanged`.";
    }
    "Subscriptions" {
        tracks_are_subscribed_on_demand: crate::subscription::on_demand,
            "`autoSubscribe: false`: tracks are listed, come when asked for one by one, go when not wanted; the publisher hears of it.";
        subscribers_choose_the_frame_rate: crate::subscription::frame_rate,
            "`setVideoFPS`: fewer frames of the same video, and all of them again.";
        subscribers_choose_the_quality: crate::subscription::as_the_app_asks,
            "`setVideoQuality` and `setEnabled` without `adaptiveStream`: that layer, or nothing, and back.";
    }
    "Presence" {
        speakers_are_told: crate::presence::speakers,
            "`ActiveSpeakersChanged` with levels, for the speaker and those who hear it: a voice, its pause, a mute; who comes while it sounds is told.";
        loudest_speakers_come_first: crate::presence::loudest_first,
            "`activeSpeakers` is in the order of levels, for everyone, and follows them.";
        participants_become_active: crate::presence::active,
            "`ParticipantConnected` when one joins, `ParticipantActive` when its media is up.";
        whose_machine_dies_is_lost_and_leaves: crate::presence::death,
            "A client that is gone without a word: quality `lost`, then it leaves, once.";
        connection_quality_is_told: crate::presence::quality,
            "`ConnectionQualityChanged`: excellent on a good path, of oneself and of those one is subscribed to.";
        connection_quality_follows_the_path: crate::presence::quality_of_a_bad_path,
            "A path that loses one packet in twelve is poor, and excellent again when it does not.";
    }
    "Layers" {
        adaptive_stream: crate::layers::adaptive_stream,
            "`adaptiveStream`: small pictures get the low layer, large ones the high one, hidden ones nothing; back within 1 s.";
        dynacast: crate::layers::dynacast,
            "`dynacast`: a layer that nobody wants is not sent by its publisher; back within 1 s when wanted.";
        stream_state: crate::layers::stream_state,
            "`TrackStreamStateChanged`: a video that does not fit the path is paused, and goes on when it does.";
    }
    "Tracks" {
        publishers_hear_of_their_first_subscriber: crate::tracks::track_subscribed,
            "`LocalTrackSubscribed`, once a track.";
        owners_mute_their_tracks: crate::tracks::muted_by_owner,
            "`setMicrophoneEnabled`, `setCameraEnabled`: muted and unmuted for everyone, the same track.";
        tracks_are_unpublished_and_republished: crate::tracks::unpublished_and_republished,
            "`unpublishTrack`, publishing again, `republishAllTracks`: gone and there again, under another id.";
        tracks_have_names_and_streams: crate::tracks::named, "`name`, `stream`, `source`: as the publisher says.";
        stereo_without_redundancy_and_dtx: crate::tracks::audio_features,
            "`forceStereo`, `dtx: false`, `red: false`: agreed on, told to others, heard.";
        audio_redundancy: crate::tracks::audio_redundancy,
            "RED, the SDK's default: `audio/red` for others, heard.";
        screen_share_with_audio: crate::tracks::screen_share,
            "`setScreenShareEnabled` with audio: both tracks arrive.";
        rooms_have_a_playout_delay: crate::tracks::playout_delay,
            "`createRoom` with `minPlayoutDelay`: video is shown that much later, and in other rooms it is not.";
        streams_are_kept_in_step: crate::tracks::streams_in_step,
            "`createRoom` with `syncStreams`: camera and microphone come in one `MediaStream`, screen and its sound in another; replaced tracks too.";
        h264_simulcast: crate::tracks::h264, "`videoCodec: h264`: three layers sent, decoded at full height.";
        vp9_svc: crate::tracks::vp9, "`videoCodec: vp9`: one scalable stream, decoded at full height.";
        end_to_end_encryption: crate::tracks::encryption,
            "`encryption` with a shared key: media and data pass the node as they are, and are decrypted.";
        backup_codec: crate::tracks::backup_codec,
            "`backupCodec`: who cannot decode VP9 gets VP8, published when needed and for as long as it is.";
        av1_svc: crate::tracks::av1, "`videoCodec: av1`: one scalable stream, decoded at full height.";
    }
    "Server SDK" {
        the_server_sdk_drives_rooms: crate::server_api::rooms,
            "`livekit-server-sdk`: rooms are made, listed, changed and deleted; what was answered is listed at once.";
        the_server_sdk_drives_participants: crate::server_api::participants,
            "`livekit-server-sdk`: each method of participants, tracks and data, with what clients see of it.";
        app_servers_call_methods_of_participants: crate::server_api::remote_call,
            "`PerformRpc`: a participant's `registerRpcMethod` answers; what it cannot, and what never comes, is an error.";
        the_server_sdk_removes_participants_with_tokens: crate::server_api::removed_with_tokens,
            "`removeParticipant` with `revokeTokenTs`: tokens of before are void, later ones are good.";
        the_server_sdk_moves_participants: crate::server_api::moved,
            "`moveParticipant`: `RoomEvent.Moved`; tracks, data and subscriptions go on in the other room, the connection stays; those left see it leave.";
        the_server_sdk_forwards_participants: crate::server_api::forwarded,
            "`forwardParticipant`: shown in the other room too, as `FORWARDED`, with its tracks, its voice and its quality, and what changes of it; it stays where it is, until it leaves or is removed there.";
        the_server_sdk_dispatches_agents: crate::agents::dispatched,
            "`AgentDispatchClient`: an agent of `livekit-agents` comes, is seen as such, answers, and goes.";
        the_server_sdk_makes_rooms_with_agents: crate::agents::of_a_room,
            "`createRoom` with `agents`: they are there for whoever joins.";
    }
    "Data" {
        data_reaches_everyone: crate::data::to_everyone, "Reliable and lossy packets, with and without topics.";
        data_reaches_those_named_alone: crate::data::to_some,
            "`destinationIdentities`: nobody else hears; unknown identities are passed over.";
        oversized_data_is_refused_by_itself: crate::data::oversized,
            "Data up to 64 KB at once gets through; more is refused by the SDK, and what comes after it arrives.";
        chat: crate::data::chat, "`sendChatMessage`.";
        remote_calls: crate::data::rpc, "`performRpc` both ways, long payloads, errors.";
        text_and_byte_streams: crate::data::streams, "`sendText` and `streamBytes` of many packets.";
        reliable_data_survives_a_resume: crate::data::across_a_resume,
            "What is sent while the signal connection is broken arrives once and in order.";
    }
}
