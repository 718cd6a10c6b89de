# SPDX-License-Identifier: Apache-2.0
"""Closed lists of English words by which `her` and `his` are told apart; all in lower case."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


SILENT_H = ("hour", "honest", "honour", "honor", "heir")
CONSONANT_SOUND = ("eu", "ew", "uni", "use", "usu", "uti", "uga", "uru", "ukr", "one", "once")

POSSESSIVES = _words("her my your our their its")
DETERMINERS = _words("the a an this these those my your his our their its some any")

STOPS = DETERMINERS | _words(
    """
    that her hers him he she it they them we us you i me mine yours ours theirs himself herself myself yourself
    themselves itself someone somebody anyone anybody everyone everybody nobody something anything everything nothing
    who whom whose which what when where why how whether while and or but nor so yet because since although though if
    unless until till than as for to from in into on onto at by with within without of off about above across after
    against along amid among around before behind below beneath beside besides between beyond despite during except
    inside near outside over per through throughout toward towards under underneath upon via out up down
    is are was were be been am has had does did do will would shall should could might must cannot
    isn wasn aren weren hasn hadn doesn didn don won wouldn couldn shouldn
    not never ever also too both either neither each aboard
    """
) - {"inside", "outside", "might"}

OPEN_PHRASE = _words("own very will might each so inside outside")  # stops for her, not for his

BARE_ADVERBS = _words(
    """
    again there here today tomorrow yesterday tonight now then once twice away apart aside together forever
    instead anyway anymore often always sometimes perhaps maybe afterwards afterward upstairs downstairs abroad
    everywhere somewhere anywhere nowhere backstage offstage onstage ashore underground anyways goodbye
    indoors outdoors otherwise altogether somehow please straight even just
    rather still already almost indeed meanwhile however therefore later sooner well alone aloud
    """
)

BEFORE_NOUN_PHRASE = _words("past inside outside like all right more less back home half")

END_ADVERBS = _words(
    """
    first last best better most more less well hard right left early late alone long enough inside outside past
    much little like wrong fast high low close closer further farther deep deeper either so all aloud
    """
)
DOES_BEST = _words(
    """
    do does did done doing try tries tried trying at on in is was be to of with for from by look looks looked looking
    play plays played playing sing sings sang sung singing give gives gave given giving miss missed change changed
    """
)
NOT_ADVERBS = _words(
    """
    family only lovely elderly early friendly lonely belly daily weekly monthly yearly ugly silly july italy lively
    costly curly deadly fly reply supply ally bully jelly homily assembly butterfly anomaly monopoly likely motherly
    fatherly sisterly brotherly worldly holy kindly cowardly timely orderly ghostly hourly
    """
)

_BACK = "call bring give pay want get take hold send win ask have need write text phone drive love talk welcome lead"
_PAST_BACK = (
    "called brought gave paid wanted got took held sent won asked had needed wrote texted phoned drove loved "
    "talked welcomed led pushed pulled push pull put carried carry kept keep invite invited draw drew calling bringing "
    "giving paying getting taking holding sending calls brings gives pays gets takes holds sends wants drives driving "
    "driven walks walked walking phones texts loves leads pushes pulls carries keeps invites follows"
)
TAKES_BACK = _words(f"{_BACK} {_PAST_BACK}")
TAKES_HOME = _words(
    """
    take takes took taken taking drive drives drove driven driving walk walks walked walking bring brings brought
    bringing send sends sent sending follow follows followed following see sees saw carry carries carried carrying
    get gets got getting escort escorted accompany accompanied invite invited welcome welcomed fly flew call called
    """
)

DAYS = _words("monday tuesday wednesday thursday friday saturday sunday")
TIME_OPENERS = _words("last next every one most each all")
TIMES = DAYS | _words(
    """
    day days night nights morning mornings afternoon evening evenings week weeks weekend month months year years
    summer autumn winter spring time hour minute christmas january february march april june july august september
    october november december
    """
)
SPANS = _words("in during for of until since spent spend spends spending finished finish before after on at through")

FINITE_VERBS = _words("knew said says went came became seemed thinks knows believes wondered agreed insisted")
MODAL_NOUNS = _words("will might can may")
BASE_VERBS = _words(
    """
    cry laugh smile go leave come know feel think understand speak sing dance walk run sleep eat drink read write
    stay sit stand wait work play win lose fall rise move stop start begin finish try learn see hear watch look find
    keep hold take give get make do have be become grow change choose decide enter pass cross climb jump swim fly
    drive ride travel return arrive die live breathe relax rest forget remember believe accept realise realize pay
    buy sell cook clean wash open close carry lift pull push join answer explain tell say talk ask shout scream
    whisper perform practise practice study teach train improve recover succeed fail help apologise apologize blush
    wonder worry hope wish want need like love hate miss meet visit call finish prepare pack unpack settle
    borrow use wear put set turn cut
    """
)
TAKES_INFINITIVE = _words(
    """
    make makes made making let lets letting help helps helped helping see sees saw seeing watch watches watched
    watching hear hears heard hearing have has had having feel felt notice noticed bid bade
    """
)
TAKES_PARTICIPLE = _words(
    """
    see sees saw seen seeing watch watches watched watching hear hears heard hearing catch catches caught find finds
    found notice notices noticed keep keeps kept leave leaves left spot spotted stop stops stopped remember remembers
    remembered feel felt picture pictured imagine imagines imagined got get sent spied glimpsed filmed photographed
    """
)
SAY_VERBS = _words("say think know believe agree feel want call love hate remember report describe insist")
NOUNS_IN_ING = _words(
    """
    wedding building painting ring king thing evening morning clothing savings feeling meaning drawing earring
    sibling string wing spring stocking darling blessing training upbringing
    dressing living being understanding reasoning timing hearing
    """
)
PLACES = _words("behind beside beside near around before with above below opposite from to")
PAST_VERBS = _words(
    """
    laughed smiled cried shouted whispered nodded stood sat fell left ran walked looked turned began started stopped
    asked replied answered moved spoke slept waited coughed sneezed clapped cheered waved stared screamed sighed
    """
)
TAKES_STATE = _words(
    """
    make makes made making keep keeps kept keeping find finds found finding drive drives drove leave leaves left
    leaving consider considers considered think thought believe believed render rendered get got getting turn turned
    call calls called hold held want wanted like liked prefer preferred declare declared set see sees saw seen
    choose chooses chose chosen elect elected name named appoint appointed crown crowned pronounce pronounced
    """
)
STATES = _words(
    """
    happy sad angry nervous ill sick rich famous proud tired afraid awake alive warm calm safe busy mad crazy unhappy
    uneasy strong stronger weak quiet jealous hungry thirsty sleepy dizzy late better worse curious anxious furious
    company guilty responsible fit healthy young old cold dry clean popular shy brave lucky lonely free captive
    president captain chair manager director leader queen hostage pregnant asleep dead cool still
    """
)
STATE_ENDINGS = ("ful", "ous", "less", "able", "ible", "iest", "ier", "ed")
NOT_STATES = _words("bed red seed feed speed greed breed need deed weed shed table cable vegetable")
DEGREES = _words("more less so too very feel quite really extremely seem appear look")

GIVES = _words(
    """
    give gives gave given giving hand hands handed handing tell tells told telling bring brings brought bringing buy
    buys bought buying send sends sent sending show shows showed showing offer offers offered offering teach teaches
    taught teaching ask asks asked asking cost costs owe owes owed lend lends lent lending pay pays paid paying
    promise promised wish wishes wished make makes made fetch fetched feed feeds fed grant granted deny denied earn
    earned save saved charge charges charged charging provide provides provided providing order orders ordered
    serve serves served serving pour pours poured fine fines fined allow allows allowed
    """
)
GIFTS = _words(
    """
    money flowers advice time help water food tea coffee permission directions chocolate chocolates cash credit support
    medicine information instructions questions lies jokes news presents gifts courage strength comfort trouble luck
    pictures photos roses sweets bread soup chess maths english piano access goodnight respect millions thousands
    hundreds dozens plenty lots part most many few thanks suggestions identification feedback newspapers information
    evidence proof lunch dinner breakfast cake wine beer milk juice soup medicine clothes toys candy cookies biscuits
    paperwork homework orders tips hints hugs kisses compliments dollars pounds euros
    """
)
LASTS = _words("take takes took taken taking cost costs last lasts lasted")
SPELLS = _words("seconds minutes hours days weeks months years decades ages forever longer until half almost nearly")
NUMBERS = _words("one two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty hundred")
