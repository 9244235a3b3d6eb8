"""Everyday, picturable English nouns: ``python training/everyday_nouns.py``.

Made from the names of ImageNet-12k's classes (WordNet, as timm ships them): things, animals, plants, food and
places whose words are whole entries of CLIP's own table of byte pairs, which holds what was frequent in its
training captions. Words for people are left out at the root, by WordNet's numbering. The result was read by
eye; `_DROPPED` holds what was struck out: the abstract, the ambiguous out of context, the insulting, weapons'
parts, and finer kinds than anybody would type. `_ADDED` holds what was missed in a home, a street, a workshop
or a kitchen: rarer ones of the names, and words of our own, a few neutral ones for people among them.
"""

import sys
from importlib.resources import files
from pathlib import Path

from pixelclip_sdk.support.files import atomic_write
from pixelclip_sdk.words.classes import class_list
from training.models.clip.tokenizer import clip_tokenizer

__all__ = ["everyday_nouns"]

_LIST = Path(__file__).resolve().parents[1] / "pixelclip_sdk" / "assets" / "classes" / "everyday-nouns.txt"
_HEADER = """\
# Everyday, picturable nouns, to ask what is in a picture. Near words compete (plane, airplane): for a purpose
# of your own choose fewer. Made by training/everyday_nouns.py from the class names of ImageNet-12k, which are
# WordNet's (WordNet 3.0 licence, see NOTICE), and words of our own; read and pruned by eye.
"""
# WordNet 3.0 numbers its nouns by subject, and ImageNet kept the numbers.
_SUBJECTS = {
    "animal": (1313093, 2656031),
    "artifact": (2663849, 4621314),
    "food": (7555863, 7938149),
    "place": (8482113, 9180000),
    "nature": (9186064, 9480000),
    "plant": (11529000, 13120000),
    "substance": (14580000, 15060000),
}
# CLIP's ids go by frequency: words beyond these are rare. In two words each has to be common.
_RAREST_WORD, _RAREST_IN_PAIR = 36_600, 14_600

_ADDED = """
acacia, accordion, acorn, adhesive tape, agave, aioli, air bag, air conditioner, air pump, airfield, almond
tree, alpaca, aluminum can, amphitheater, amusement park, ankle, answering machine, antelope, anvil,
archipelago, arm, armchair, army ant, artichoke, baboon, baby bottle, baby carriage, baby monitor, back
porch, backyard, bacon, badminton racket, bagpipes, baguette, baking tray, bald eagle, ball bearing, bamboo,
bandage, bangle, banknote, bar stool, barbed wire, barbell, barbershop, barcode, bark, barrel cactus,
barrier, baseball glove, basketball hoop, bath mat, bath towel, bathrobe, bathtub, baton, battery charger,
batting cage, beach ball, beach chair, beach house, beach towel, beach umbrella, beaker, bean bag, bear cub,
beard, bed frame, bedsheet, bedside lamp, beehive, beret, bidet, bighorn sheep, bike lane, binoculars, bird
bath, bird cage, bird feeder, bird house, birthday cake, biryani, bistro, black widow, blackbird,
blackboard, blazer, blood pressure monitor, blue crab, bluebird, board game, bobcat, boiled egg, bollard,
bolt cutter, bomber jacket, bone, bongo, bonsai, bookcase, boulder, bowler hat, boxing glove, boxing ring,
boy, bracket, brake disk, brake pad, brake pedal, branch, bread basket, brick house, brick wall, briefcase,
brioche, brooch, brownie, buffalo, building site, bulldozer, bulletin board, bumblebee, bumper car, bunk
bed, buoy, burner, bus shelter, business card, butcher shop, buttermilk, buzzard, cable tray, cactus, cake,
calendar, camp, campfire, campsite, canal, candle holder, candlestick, candy cane, canteen, canvas, car
park, car wash, caravan, card table, cardboard, cargo container, cargo door, caribou, carnation, carousel,
carpet, carport, carton, carving knife, cashew, cassette player, cassette tape, cat litter box, cat tree,
ceiling, ceiling fan, ceiling light, cell phone, cell tower, centipede, cereal, cereal bowl, cereal box,
chain-link fence, chalet, chameleon, changing table, charger, charging cable, charging station, chariot,
cheeseburger, cheesecake, chess piece, chessboard, chicken coop, chicken leg, chicken nugget, chicken wing,
chickpea, chihuahua, child, chili pepper, chimney, chimpanzee, chipmunk, chocolate, chopsticks, chowder,
christmas tree, cigar, cigar box, cigarette, cigarette lighter, cinder block, circuit breaker, circular saw,
clamp, clarinet, clinic, clipboard, closet, cloth, clothes hanger, clothesline, clothespin, cloud, clover,
clownfish, coach, coast, coaster, coat rack, cockatoo, cockpit, cockroach, coffee machine, coin, colander,
comb, comic book, compact disk, computer, computer case, computer keyboard, computer mouse, concrete block,
concrete mixer, condor, confetti, construction worker, contact lens, container ship, convenience store,
conveyor belt, cookie, cookie cutter, cooking pot, cooling tower, coral reef, coral snake, coriander,
corkscrew, cornfield, corset, cottage, cotton, cotton swab, cowbell, crane, crash barrier, crayfish, crayon,
credit card, creek, cress, crochet needle, croissant, crop, crossroad, crosswalk, crowbar, crowd, crutch,
cuckoo, cufflinks, cumin, cup, cupcake, curling iron, currant, cursor, curtain, curtain rod, cushion,
cutlery, cutting board, cyclist, cymbal, cypress, dachshund, dahlia, dalmatian, dandelion, dart, dartboard,
data center, date palm, dental floss, departure lounge, desert, desktop computer, detergent, dice, digital
scale, dirt, dishwasher, diving bell, diving board, diving mask, dog bed, dog collar, dog house, dog leash,
donkey, door frame, door handle, doorbell, doorknob, doormat, doorway, double-decker bus, dragon fruit,
drain, drawbridge, dried fruit, driftwood, drill bit, driveway, drone, drum set, duffel bag, dugout,
dumbbell, dump truck, dumpling, dustpan, ear, earbuds, earmuffs, earphones, earring, easel, egg carton, egg
timer, egret, electric mixer, electric scooter, electric shaver, electric toothbrush, electrical panel,
emperor penguin, engagement ring, eraser, escalator, espresso machine, etching, eucalyptus, ewe, excavator,
exhaust pipe, eye, eyebrow, eyelash, face, face mask, false teeth, farm, farmland, faucet, fawn, feather,
feather boa, fedora, fender, ferris wheel, ferry terminal, fez, fiber, field mouse, filing cabinet,
fingernail, fire ant, fire escape, fire extinguisher, fire hydrant, fire pit, fire station, fire truck,
fireworks, first aid kit, fish bowl, fish tank, fishing boat, fishing net, fist, flagpole, flame, flannel,
flashlight, flea, fleece, flip-flops, floor, florist, flour mill, flower bed, flower bouquet, flower pot,
flying fish, foal, foam, fog, folding chair, folding door, fondue, food container, food truck, foot,
football, football field, football goal, footbridge, footpath, forehead, forest, forklift, fox terrier,
freckles, freezer, freight car, freight train, fried chicken, frisbee, front porch, fruit bowl, fruit stand,
frying pan, fuel gauge, fuel tank, fuse box, game controller, garage door, garden chair, garden gnome,
garden hose, garden shed, gas cylinder, gas station, gas stove, gauze, gazebo, gecko, german shepherd,
geyser, gift box, gift wrapping, ginger, girl, glasses, glider, globe, glue stick, golden retriever,
goldfish, golf cart, golf course, gondola, gopher, grain silo, grandfather clock, granola, grapevine, graph
paper, grass snake, grasshopper, grassland, grater, gravel road, gravestone, great ape, greeting card, grey
whale, grid, grill, grotto, ground squirrel, guacamole, guardrail, guide dog, guinea pig, gully, gumbo,
gutter, gym, gym shoe, hacksaw, hair dryer, hairbrush, hairpin, ham, hand dryer, hand towel, handbag,
handcuffs, handkerchief, handlebar, handrail, hang glider, hangar, harbor seal, hard drive, hardware store,
harmonica, harrow, hatch, hatchback, hay bale, headboard, headlight, headphones, heath, high chair, high
heels, highlighter, highway, hiking boot, hillside, hinge, hippopotamus, hockey puck, honeycomb, hoodie,
horizon, horse trailer, hose reel, hot air balloon, hot dog, hot tub, hourglass, houseplant, hubcap, hula
hoop, hunting dog, husky, hyena, ibex, ibis, ice, ice cream cone, ice cube, ice pack, icicle, id card,
igloo, iguana, impala, inflatable boat, infusion stand, inhaler, ink cartridge, iron fence, ironing board,
island, ivy, jackfruit, jar lid, jeans, jet bridge, jet ski, jewelry, jigsaw puzzle, joystick, juice box,
jump rope, jungle, jungle cat, kebab, kennel, ketchup, kettlebell, keyhole, khaki, kidney bean, kiln,
kimono, king penguin, kiosk, kitchen cabinet, kitchen knife, kitchen sink, kitchen towel, kite, knee,
kneepad, knitting needle, koala, label, labrador, ladder, ladder truck, ladle, ladybug, lagoon, lake, lake
bed, lampshade, lander, lane marking, lanyard, lapel, lasagna, laundry, laundry basket, laundry cart, lawn,
lawn mower, leaf, leaf blower, leather, leaves, leggings, lemur, lentil, license plate, life vest, lifeboat,
lifebuoy, lifeguard tower, light bulb, light fixture, light switch, lighthouse, lightning, lilac, lima bean,
linen, lion cub, lips, llama, locket, locust, log, lotus, loudspeaker, lumber, lunch box, lychee, macaron,
macaroni, machinery, magazine, magnet, magnifying glass, magpie, mahogany, mail, mammoth, man, manatee,
mandolin, mangrove, manhole cover, mannequin, manta ray, maple syrup, marching band, market stall,
marmalade, marquee, mastiff, mattress, mayonnaise, meadow, measuring cup, measuring spoon, measuring tape,
meatball, medal, medicine, meerkat, megaphone, metal, metro station, microwave oven, milk, milk bottle, milk
carton, milkshake, mineral water, minibus, minivan, mistletoe, mittens, mixing bowl, money, mongoose,
monitor, moon, moose, mop, moped, moray, mosquito net, moss, motorboat, motorcycle helmet, motorhome,
mountain hut, mousepad, mousetrap, mud, mulberry, museum, musk ox, mustache, nail clipper, nail file, nail
gun, napkin, neck, nectarine, neon sign, newspaper stand, newt, nightingale, nightstand, noodles, nose,
notepad, nurse shark, nut, oar, oat, office chair, oil, oil barrel, oil rig, oil slick, olive oil, omelet,
optical fiber, orangutan, orchard, osprey, ostrich, oven mitt, overpass, oxygen mask, oxygen tank, oyster
mushroom, pacifier, paddle board, padlock, paella, paint brush, paint bucket, paint can, paint roller,
painting, pajamas, palette, pallet, palm tree, pancake, panda, papaya, paper bag, paper cup, paper cutter,
paper mill, paper plate, paper towel, paprika, parakeet, parallel bars, parasol, parcel, park, parking
garage, parking space, passport, path, patrol boat, pavement, paw, pawn, peacock, pebble, pedestrian, pencil
sharpener, pendant, pendulum, penthouse, people, periscope, persimmon, person, petal, petri dish, petrol
can, pheasant, phone booth, phone case, photo album, photograph, piano bench, pickle, pickup truck, picture
window, pie, piggy bank, pill, pill bottle, pillar, pillowcase, pilot whale, pincushion, pine tree,
pinecone, ping-pong table, pipe, piston, pizza box, pizza cutter, pizza oven, pizzeria, placemat, plane
tree, plastic, plastic bottle, plastic box, plastic chair, plastic cup, playing card, pliers, plow, plunger,
plywood, pocket, pocket knife, podium, poison ivy, poker chip, polar bear, police car, polyester, pond,
ponytail, pool noodle, popcorn machine, poplar, porcupine, postcard, poster, potato chips, potato masher,
pothole, potted plant, potting soil, power outlet, power plant, power pole, power strip, power tool, prairie
dog, prayer rug, pressure cooker, pressure gauge, pretzel, price tag, primrose, propeller, puddle, puffin,
pullover, punching bag, puppet, qr code, quesadilla, quill, quinoa, raceway, racket, radiator, radio
telescope, radish, railing, railroad track, railway bridge, railway platform, rain, rain boots, rain gauge,
raincoat, rainforest, raisin, ramen, rattlesnake, reactor, rearview mirror, receipt, recliner, red panda,
red squirrel, reed, refrigerator, reindeer, reptile, rhinoceros, ribbon, rice cooker, rice field, rigging,
ring, river, river bank, river dolphin, road marking, road roller, road sign, roadwork, robot, robot arm,
rock climber, roe deer, roller coaster, rollerblades, roof, roof rack, roof tiles, rooster, root, rope,
rosary, rotor, roundabout, rowboat, rubber, rubber duck, rubber stamp, rubble, rucksack, ruler, running
track, safety goggles, safety net, safety vest, sailboat, salamander, salt, salt shaker, sandal, sandbag,
sandbox, sandcastle, sandpaper, sandwich, satchel, satellite dish, saucepan, saucer, sausage, sawdust,
sawmill, saxophone, scaffolding, scallop, scarecrow, school desk, scooter, scrambled eggs, scrap metal,
screwdriver, sea, sea cucumber, sea snake, sea urchin, seagull, seahorse, seam, seashell, seaweed, security
camera, seed, seesaw, sesame seed, sewing kit, sewing machine, sewing needle, shadow, shampoo, shaving
cream, sheet music, shepherd dog, shipping container, shipwreck, shoe box, shoe rack, shoelace, shop window,
shopfront, shopping cart, shorts, shower curtain, shower head, shrub, shuttle bus, shuttlecock, siamese cat,
sickle, signpost, silo, silverware, sink, skeleton, ski jump, ski lift, ski resort, ski slope, skis, skull,
skunk, sleeping car, sleigh, slipper, slow cooker, smartphone, smartwatch, smoke, smoke detector,
smokestack, snare drum, sneakers, snorkel, snow, snow goose, snow leopard, snow plow, snowball, snowflake,
snowman, snowmobile, soap, soap dispenser, soccer field, soccer goal, solar panel, soup, soy sauce, space
helmet, space shuttle, space suit, spatula, speaker, speed bump, speed limit sign, spice jar, spider monkey,
spiral notebook, spirit level, sponge cake, sports field, spotted owl, spray bottle, spring roll, sprinkler,
sprout, squirrel monkey, stadium seat, stained glass, staircase, stairs, stapler, starfish, starling,
statue, steak, steakhouse, steam train, steamboat, steering wheel, stencil, step ladder, stethoscope,
sticker, sticky note, stingray, stone, stone bridge, stone crab, stop light, stop sign, stopwatch, storage
box, stork, storm cloud, strainer, straw, stream, street lamp, street sign, string, strip mall, stroller,
stuffed animal, stylus, suburb, suitcase, sun hat, sunset, surfboard, surgical instrument, surgical mask,
suspenders, suspension bridge, swimming cap, swimming goggles, swimming pool, swordfish, sycamore,
synthesizer, syringe, t-shirt, table tennis, tablecloth, tablet, tail, tail light, tambourine, tangerine,
tank truck, tape dispenser, tape measure, tavern, taxi, tea towel, teacup, teapot, teddy bear, telephone
booth, telephone pole, television stand, tennis court, tennis racket, tent peg, terminal, test tube,
thermometer, thermos, thermostat, thread, throw pillow, tiara, ticket, tiger cub, tiger lily, timber wolf,
tin can, tire, tissue, tissue box, toad, toaster, toaster oven, toe, tofu, toilet brush, toilet paper,
toilet roll holder, toll booth, toll bridge, tool belt, toolbox, toothbrush, toothpaste, toothpick,
tortilla, toucan, tow truck, towel, towel rack, toy block, toy car, toy train, track suit, traffic barrier,
traffic cone, traffic jam, traffic light, traffic sign, trail, train station, tram, trampoline, transformer,
transmission tower, trap door, trash can, treadmill, tree house, tree stump, tree trunk, trench, trench
coat, tricycle, trident, trolley, trombone, trophy, trough, trousers, trumpet, tuba, tumbler, tundra, tuning
fork, tunnel, turban, turbine, turnstile, turntable, tuxedo, tweezers, twig, typewriter, ukulele, umbrella
stand, unicycle, uniform, upholstery, urinal, urn, usb stick, utility pole, vacuum cleaner, vegetable
garden, veil, vending machine, ventilation duct, viaduct, video camera, video game console, vinegar,
vineyard, vinyl record, visor, vitamin pill, waffle, waistcoat, walkie-talkie, wall, walrus, warship,
wasabi, washing machine, waste bin, watch strap, water, water bed, water filter, water jug, water lily,
water pipe, water pump, water slide, water tank, water tap, watercolor, waterfall, watering can, wave,
weasel, weather vane, wedding cake, wedding dress, weed, weighing scale, welding mask, wetland, wheat field,
wheelbarrow, whipped cream, whisk, whiteboard, wicker basket, wild duck, wind chime, wind turbine, window
sill, windshield wiper, wine bar, wine glass, wine rack, winter coat, wire cutter, wire fence, wolf pup,
wolverine, woman, wood duck, wood pigeon, wooden box, wooden chair, wooden crate, wooden floor, wooden
table, workbench, worker bee, wreath, wrist, wristband, xylophone, yellow jacket, yoga mat, zebra crossing,
zipper
"""

_DROPPED = """
abandoned ship, academic costume, academic gown, accelerator, accommodation, action, adapter, admiral,
adult, afghan, agua, air hammer, airbus, amazon, ammunition, anchor chain, annual, apse, aquatic, arc lamp,
architecture, arctic, area, argyle, arm guard, array, artificial horizon, ash, ash-pan, ass, assembly,
assembly hall, assembly plant, athletic supporter, attire, audio system, auk, automation, ax handle, ax
head, baby grand, back, back brace, background, backup system, bait, balance, balance beam, balloon sail,
bap, bar printer, barrow, base, baseball equipment, basketball equipment, bass, bass horn, bath oil, batter,
battle dress, bay, bay rum, baya, beach wagon, beam, bearing, bed jacket, bedroom furniture, beef, beetroot,
bell arch, bell jar, bell push, ben, berlin, berth, bier, big cat, bikini pants, bill, billy, binding, bing
cherry, birch, bird feed, bit, black, black box, black tie, blank, bleu, bling, block, block plane, blower,
blue, bluff, board, boarding house, boat hook, bock, body, bomb, bomb shelter, bomber, bones, boom, booster,
bottom, box camera, box office, box spring, boxer, boxing equipment, branch water, brass, breakfast area,
breast pocket, brew, broad arrow, broadcaster, broken arch, bronco, buck, buckeye, buffer, building complex,
bullet, bullock, bumper, bundle, bush, butte, cab, cabin car, cabin class, cache, call center, camouflage,
candy egg, canvas tent, cap opener, cap screw, capitol, capsule, car bomb, car carrier, car train, card
index, cargo liner, carpet pad, cartridge, case, case knife, cast, cat box, catch, cattle guard, cedar
chest, cell, center punch, chain store, champagne cup, character printer, chassis, chemical plant,
chesterfield, chicken wire, chicken yard, chin rest, chin strap, chino, chip, chocolate kiss, choir, chow,
chuck, church hat, circle, circuit, circus tent, cirque, city hall, clean room, cleaners, clip, clock radio,
closed circuit, cloth cap, clothes closet, clothes tree, clutch, coach house, coat button, coat closet,
coating, cob, coffee can, cog, coil, col, cold cream, cold frame, collins, color television, color tube,
color wash, combination salad, combine, comfort food, common bean, common room, communication system,
communications satellite, commuter, compact, composite, concert grand, conference center, connection,
conserve, console, console table, contact, control, control center, control circuit, control key, control
room, converter, copper, cord, cords, core bit, corn pudding, corn whiskey, corner, cos, cosmetic, cosmos,
cosy, course, court, covered bridge, covered couch, cow pen, craft, cream, cream pitcher, crest, cricket,
cricket equipment, cross bun, cruise control, cruiser, cue, cue ball, cuppa, cur, cutter, cylinder, dairy,
dairy product, dam, danish, dark bread, data system, date bread, davenport, deep-freeze, defense system,
defensive structure, descent, desk phone, desktop, dessert spoon, dessert wine, destroyer, detector, device,
dial, dice cup, diesel, diet, dietary, digital display, dining-hall, dinner bell, dinner dress, dip, dirk,
disguise, disk, display, display window, disposal, domino, double cream, double knit, down, downhill, draft
beer, drake, dress hat, dress suit, dressing, dressing case, drill press, drive, driver, driving iron,
driving wheel, drum printer, dry battery, dry fly, dry wall, dude ranch, duff, dun, dust cover, easy chair,
eating apple, eight ball, eland, elbow, electric, electric chair, electric hammer, electric lamp, electric
meter, electric organ, electric range, electrical cable, electrical device, electrical system, electronic
balance, electronic device, electronic equipment, embassy, emperor, empty, enamel, engineering, ensemble,
entertainment center, equine, equipment, ern, establishment, ethernet, everlasting, exhaust, exhibition
hall, express, facade, face guard, face powder, facing, fairy light, false face, fan belt, fancy dress,
fare, farm building, farm machine, feeder, felt, fetus, field glass, field house, field lens, field tent,
fieldwork, fifth wheel, fighter, figure skate, filling, filly, film advance, filter, finder, finger bowl,
finger food, finger paint, finger plate, finger-painting, finish coat, fire bell, fire iron, fire screen,
fire tower, first base, first class, fish fry, fizz, flap, flash, flash camera, flash memory, flat bench,
flats, float, flood, floor cover, floss, fly rod, fly tent, flying boat, fold, formula, four-poster, frame,
framework, free house, fresh bean, fruit machine, fuel filter, fuji, funeral home, fungus, fuse, gable, gag,
game equipment, gaming table, gar, garden tool, gas engine, gas gun, gas holder, gas meter, gas oven, gas
range, gas ring, gas tank, gat, gauge, gear, gearing, gemma, geneva, gig, glasses case, glow tube, goal,
gold plate, golf equipment, grab bag, grab bar, graham bread, great hall, grenade, grey, ground floor, grub,
guard ship, gum ball, gun, gun case, hack, hackney, hair slide, half track, hall, hand drill, hand glass,
hand pump, hand tool, hank, hard candy, hard cider, hard disc, hard roll, hart, hash, hazard, head, head
covering, header, headquarters, health spa, heat engine, heat pump, heat sink, helm, herb, hi-fi, high tea,
high-rise, highland, hind, hip, hip boot, hip pocket, hip roof, hip tile, hitch, hobby, hoe handle, hog,
holder, hole, home brew, home plate, home room, homestead, homo, hope chest, horn button, horse cart,
horse-trail, hospital ship, hot line, hot pants, hotel-casino, hour hand, house paint, housing, hunting
knife, hurdle, hurricane deck, hurricane lamp, ice ax, ice mass, ice tea, impact printer, in-basket,
indicator, inga, ingredient, ink bottle, institution, instrument, integrated circuit, interface, interior
door, internal drive, irons, jack, jack plane, jacket potato, jean, joint, jump suit, jumper, junk, keep,
keg, ketch, kick starter, kid, king, kirk, kiss, kit, kitty, knee brace, knee pad, knee piece, knee-high,
knife blade, knit, knot, kosher, koto, kremlin, lab bench, lame, land line, landing net, launcher, lawn
furniture, lead pencil, lean-to, leather strip, leg, level, lever, light beer, light cream, light meter,
light pen, lighting, line printer, liner, link, lip, liquor, litter, little theater, living quarters,
lobster pot, local, lock-gate, long johns, long sleeve, lookout, love seat, loving cup, luxury liner,
machine, machine gun, machine screw, macon, magazine rack, magnetic tape, magnum, mail train, main yard,
male, manhattan, manor hall, mara, marrow, masjid, master bedroom, masterpiece, mat, match, mate, maxi,
measure, meat counter, mecca, mechanical device, mechanical piano, mechanical system, mechanism, medic,
medical building, medicine ball, medicine chest, memorial, memory, memory device, menu, mess jacket, mess
kit, metal screw, meter, military uniform, military vehicle, milk can, miller, mince, ministry, minster,
mint, minute hand, missile, mixed drink, module, mold, monarch, money belt, morning dress, morning room,
mortar, motor hotel, mound, mount, mountain tent, mouse button, movement, mud brick, mull, mullet, muscat,
music hall, music school, nan, nanny, national monument, naval equipment, naval gun, near beer, neck brace,
negative, neon lamp, nest egg, net melon, network, nib, nude, nursery, nut bread, objective, office
furniture, oil cake, oil filter, oil paint, onion dome, opener, orange soda, ordinary, organ pipe, orphan,
outfit, outside mirror, overall, oxford, pace car, pack, package store, packet, packing box, paddock, paddy,
page printer, pale ale, palette knife, panic button, pants suit, paper chain, paper feed, parts bin,
passenger car, passenger ship, passenger van, patch, patch pocket, pay-phone, pea jacket, peg, pen, pepper
pot, permanent press, permit, perry, personnel carrier, pest, phoebe, pick, picture hat, pier arch, pier
glass, pier table, pig bed, pike, pile driver, pillow block, pillow lace, pillow sham, pilot boat, pilot
light, pink, pinnacle, pinto, pirate, pistol, plain, plane seat, planner, platform bed, plug, plush, pod,
point, point lace, pointer, poke, police boat, police dog, poll, pony cart, pop, pop bottle, port, portable,
porter, portfolio, portrait camera, portrait lens, post, pound, powder, powder horn, power saw, predator,
press, press box, pressure suit, prey, print, printed circuit, printer cable, prison, production line, proof
spirit, public transport, pull, pull chain, pulse, pump, punch, punch bowl, punch press, punt, pup, pup
tent, purple onion, push button, push-bike, quad, queen, quick bread, racer, racing gig, rack, rail, rail
fence, rain barrel, rain stick, range, range hood, rape, ratchet, raw milk, receiver, record sleeve,
recorder, recording, recovery room, redhead, reel, regulator, relay, religious residence, remote terminal,
rendering, residence, rest house, rhea, ridge rope, ridley, rifle, rig, riot gun, river boat, rocker, roll
film, roll-on, roller, roller blind, rolling mill, rolling stock, roofing, room light, rope bridge, rose
window, rouge, rough, round, round arch, row house, royal, rue, ruff, rule, rumble, rye, saber, sable, safe,
safety belt, safety bicycle, safety rail, salad green, sandwich board, sandwich plate, satellite television,
sawyer, scarf joint, school bell, school ship, screw thread, sea boat, sea chest, second base, second hand,
secretary, sectional, sedan, separate, server, serving cart, set gun, setter, settle, sewer, shad, shadow
box, shaft, sheet pile, shelter, shift key, shipping, shire, shirt button, short pants, short sleeve, shot
tower, shotgun, shoulder pad, shoulder patch, shrimp butter, shuttle, sights, signal box, simulator, sire,
sister ship, sketch, ski cap, ski lodge, slide rule, slip ring, slip-on, slot, small boat, small stores,
smoke screen, smoker, smooth plane, snag, snap bean, soft diet, soil horizon, soil pipe, solar dish, solar
house, sound camera, sour, sow, space bar, spawn, special, speed skate, spider web, spike, spinning machine,
spinning rod, spit, split, split rail, spoiler, sports equipment, spray gun, spring, spring balance, spur,
square sail, stable gear, stacks, stage, stall, stand, starter, starting gate, steak sauce, steel mill,
steep, stick, stick cinnamon, stock, stock car, stole, storage battery, storage space, storm door, storm
window, stout, straight chair, strand, stray, street clothes, stretch pants, strip lighting, structure,
stud, studio apartment, studio couch, study, study hall, stuffing, stump, sty, subway train, succulent,
sugar spoon, summer house, summer squash, supply chamber, supply closet, support column, supporting
structure, supporting tower, surface ship, sushi bar, suspension, swallow, sweat suit, sweep hand, sweet,
swell, swift, swine, switch, switch engine, system, tabby, table knife, table wine, tabletop, tack,
tailgate, takin, tam, tangle, tank, tank car, tank engine, tap, tape deck, tape drive, tape player, tea
ball, tea cart, tea gown, tea table, teal, tee, television equipment, television monitor, television room,
tender, tennis camp, tent-fly, terry, test rocket, thermal printer, third base, tick, ticking, tie rack, tie
rod, tin, tine, tire chain, tobacco shop, toby, toilet bag, toilet powder, toilet water, token, tom, tonic,
tool bag, top, tor, toy box, track, tract house, traction engine, trail bike, transport ship, trap, travel
iron, tread, trigger, triple cream, triple sec, troll, trophy case, tun, turner, turnover, tweeter,
twenty-two, twist bit, two-piece, uke, universal joint, upright, used-car, vacation home, vacuum, veld,
veronica, vertical file, vertical tail, vessel, vest pocket, video recording, vintage, violet, voting booth,
voting machine, wagon tire, wagon wheel, wall tent, wall unit, ward, washer, watch cap, watch case,
watchdog, water closet, water jump, water meter, water mill, water ski, waterproof, wax bean, weapon,
weapons carrier, weaver, web, wedge, weekender, weight, weir, western, wet bar, wet fly, whiskey sour,
white, white goods, wick, wicket, window box, window seat, window shade, wine bucket, wing chair, wing nut,
wing tip, wish-wash, woof, work-clothing, work-shirt, world, worm fence, wort, wreck, yard, young
"""

# Two-word animals and plants are mostly species; these are the ones people name.
_KEPT_PAIRS = """
alley cat, apple tree, barn owl, big cat, black swan, blue jay, blue whale, box turtle, brain coral, brown
bear, bull shark, draft horse, elephant seal, flying fox, fruit bat, fruit fly, fruit tree, fur seal, garden
spider, giant panda, golden eagle, killer whale, king crab, mountain goat, olive tree, pitcher plant, police
dog, queen bee, red fox, sand dollar, sea lion, sea turtle, tiger shark, tree frog, vampire bat, water
buffalo, whale shark, wild boar, wild horse
"""


def everyday_nouns() -> list[str]:
    """The nouns, in alphabetical order."""
    info = files("timm.data") / "_info"
    names = dict(
        line.split("\t", 1) for line in (info / "imagenet_synset_to_lemma.txt").read_text().splitlines()
    )
    ids = clip_tokenizer().get_vocab()
    dropped, pairs = set(_split(_DROPPED)), set(_split(_KEPT_PAIRS))
    found = {*_split(_ADDED), *class_list("common-150")}
    for synset in (info / "imagenet12k_synsets.txt").read_text().split():
        name = names[synset].split(", ")[0]
        words = name.replace("-", " ").split()
        rarest = max(ids.get(f"{word}</w>", sys.maxsize) for word in words)
        subject = next((s for s, (a, b) in _SUBJECTS.items() if a <= int(synset[1:]) <= b), None)
        common = rarest < (_RAREST_WORD if len(words) == 1 else _RAREST_IN_PAIR)
        if name != name.lower() or subject is None or not common or len(words) > 2 or name in dropped:
            continue
        if subject in ("animal", "plant") and len(words) == 2 and name not in pairs:
            continue
        found.add(name)
    return sorted(found)


def _split(text: str) -> list[str]:
    return [word.strip() for word in text.replace("\n", " ").split(",") if word.strip()]


def main() -> int:
    """Write the list into the SDK."""
    names = everyday_nouns()
    with atomic_write(_LIST) as temporary:
        temporary.write_text(_HEADER + "\n".join(names) + "\n", encoding="utf-8")
    print(f"{len(names)} nouns → {_LIST}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
